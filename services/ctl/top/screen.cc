#include "services/ctl/top/screen.h"

#include <absl/strings/str_cat.h>
#include <langinfo.h>
#include <ncurses.h>
#include <unistd.h>

#include <clocale>
#include <csignal>
#include <cstdlib>
#include <cstring>

namespace tandem::ctl {
namespace {

volatile std::sig_atomic_t stop_signal = 0;
void NoteStop(int number) { stop_signal = number; }

constexpr int kCtrlC = 3;
constexpr int kStopSignals[] = {SIGINT, SIGTERM, SIGHUP};
// Colour pairs.
enum : short { kGreen = 1, kYellow, kBlue, kRed };

attr_t AttributesOf(TopStyle style) {
  const bool colour = has_colors();
  switch (style) {
    case TopStyle::kPlain:
      return A_NORMAL;
    case TopStyle::kTitle:
      return A_BOLD | A_REVERSE;
    case TopStyle::kBold:
      return A_BOLD;
    case TopStyle::kDim:
      return A_DIM;
    case TopStyle::kBusy:
      return colour ? COLOR_PAIR(kGreen) : A_BOLD;
    case TopStyle::kStall:
      return colour ? COLOR_PAIR(kYellow) : A_NORMAL;
    case TopStyle::kIdle:
      return colour ? COLOR_PAIR(kBlue) : A_DIM;
    case TopStyle::kWarn:
      return colour ? COLOR_PAIR(kRed) | A_BOLD : A_STANDOUT;
  }
  return A_NORMAL;
}

void StartColours() {
  if (!has_colors()) return;
  start_color();
  use_default_colors();
  init_pair(kGreen, COLOR_GREEN, -1);
  init_pair(kYellow, COLOR_YELLOW, -1);
  init_pair(kBlue, COLOR_BLUE, -1);
  init_pair(kRed, COLOR_RED, -1);
}

}  // namespace

bool LocaleIsUtf8() {
  std::setlocale(LC_CTYPE, "");
  return std::strcmp(nl_langinfo(CODESET), "UTF-8") == 0;
}

absl::StatusOr<std::unique_ptr<TopScreen>> TopScreen::Open() {
  if (!isatty(STDIN_FILENO) || !isatty(STDOUT_FILENO)) {
    return absl::FailedPreconditionError(
        "top needs a terminal; top --once prints one frame as text");
  }
  const bool utf8 = LocaleIsUtf8();
  if (newterm(nullptr, stdout, stdin) == nullptr) {
    const char* const term = std::getenv("TERM");
    return absl::FailedPreconditionError(absl::StrCat("nobody knows the terminal TERM='",
                                                      term == nullptr ? "" : term,
                                                      "'; top --once prints one frame as text"));
  }
  // Before ncurses' own handler for SIGINT would end the process.
  struct sigaction action {};
  action.sa_handler = NoteStop;
  for (const int number : kStopSignals) sigaction(number, &action, nullptr);
  cbreak();
  noecho();
  curs_set(0);
  keypad(stdscr, TRUE);
  StartColours();
  return std::unique_ptr<TopScreen>(new TopScreen(utf8));
}

TopScreen::~TopScreen() {
  endwin();
  struct sigaction action {};
  action.sa_handler = SIG_DFL;
  for (const int number : kStopSignals) sigaction(number, &action, nullptr);
}

FrameSize TopScreen::size() const {
  int rows = 0, columns = 0;
  getmaxyx(stdscr, rows, columns);
  FrameSize size;
  size.width = static_cast<size_t>(columns);
  size.height = static_cast<size_t>(rows);
  size.unicode = utf8_;
  return size;
}

void TopScreen::Draw(const std::vector<TopLine>& lines) {
  erase();
  int row = 0;
  for (const TopLine& line : lines) {
    move(row++, 0);
    for (const TopSpan& span : line) {
      attrset(static_cast<int>(AttributesOf(span.style)));
      addstr(span.text.c_str());
    }
  }
  refresh();
}

TopScreen::Event TopScreen::Wait(Duration timeout) {
  ::timeout(static_cast<int>(timeout.nanoseconds() / 1'000'000));
  const int key = getch();
  if (stop_signal != 0 || key == 'q' || key == 'Q' || key == kCtrlC) return Event::kQuit;
  return key == KEY_RESIZE ? Event::kResized : Event::kNone;
}

}  // namespace tandem::ctl
