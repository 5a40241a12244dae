// tandemctl top: the cluster as it runs, on a terminal.

#include <absl/strings/str_cat.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <chrono>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "scheduler/base/status.h"
#include "services/ctl/commands.h"
#include "services/ctl/top/frame.h"
#include "services/ctl/top/screen.h"
#include "services/ctl/top/source.h"
#include "services/runtime/mutex.h"
#include "services/runtime/real_time.h"
#include "services/runtime/tco_words.h"

namespace tandem::ctl {
namespace {

constexpr size_t kPipeColumns = 100;
constexpr size_t kAllLines = 100'000;
constexpr Duration kKeyPatience = Duration::Milliseconds(100);

struct Options {
  RouterOptions router;
  double interval_seconds = 1;
  std::string window = "10s";
  bool once = false;
};

// Asks from a thread of its own, so that keys and sizes are answered while a router is silent.
class Asker {
 public:
  Asker(TopSource& source, Duration interval)
      : thread_([this, &source, interval] { Run(source, interval); }) {}
  ~Asker() {
    {
      MutexLock lock(mu_);
      stopping_ = true;
      wake_.NotifyAll();
    }
    thread_.join();
  }

  // The newest; nullopt: none since the last call.
  std::optional<TopSnapshot> Take() {
    MutexLock lock(mu_);
    return std::exchange(newest_, std::nullopt);
  }

 private:
  void Run(TopSource& source, Duration interval) TANDEM_EXCLUDES(mu_) {
    for (;;) {
      TopSnapshot snapshot = source.Ask();
      MutexLock lock(mu_);
      newest_ = std::move(snapshot);
      if (!stopping_) wake_.WaitFor(lock, std::chrono::nanoseconds(interval.nanoseconds()));
      if (stopping_) return;
    }
  }

  Mutex mu_;
  CondVar wake_;
  bool stopping_ TANDEM_GUARDED_BY(mu_) = false;
  std::optional<TopSnapshot> newest_ TANDEM_GUARDED_BY(mu_);
  std::thread thread_;  // last: it uses all of the above
};

absl::Status PrintOnce(TopSource& source) {
  FrameSize size;
  winsize window{};
  const bool terminal = ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 0;
  size.width = terminal ? window.ws_col : kPipeColumns;
  size.height = kAllLines;
  size.unicode = LocaleIsUtf8();
  size.keys = false;
  const TopSnapshot snapshot = source.Ask();
  if (!source.answered()) return absl::UnavailableError(snapshot.lost);
  for (const TopLine& line : TopFrame(snapshot, size)) std::printf("%s\n", PlainText(line).c_str());
  return absl::OkStatus();
}

absl::Status ShowUntilQuit(TopSource& source, Duration interval) {
  TopSnapshot shown = source.Ask();  // something to look at at once
  if (!source.answered()) return absl::UnavailableError(shown.lost);
  ASSIGN_OR_RETURN(std::unique_ptr<TopScreen> screen, TopScreen::Open());
  screen->Draw(TopFrame(shown, screen->size()));
  Asker asker(source, interval);
  for (;;) {
    const TopScreen::Event event = screen->Wait(kKeyPatience);
    if (event == TopScreen::Event::kQuit) {
      screen.reset();  // at once: the asker may have to wait for a router that is silent
      return absl::OkStatus();
    }
    std::optional<TopSnapshot> next = asker.Take();
    if (!next.has_value() && event != TopScreen::Event::kResized) continue;
    if (next.has_value()) shown = *std::move(next);
    screen->Draw(TopFrame(shown, screen->size()));
  }
}

absl::Status Top(const Options& options) {
  ASSIGN_OR_RETURN(const Duration window, ParseWindow(options.window));
  ASSIGN_OR_RETURN(const LinkSecurity security, RouterSecurity(options.router));
  RealTimeSource time;
  TopSource source(RouterAddress(options.router), security, window, time);
  if (options.once) return PrintOnce(source);
  return ShowUntilQuit(source, Duration::FromSeconds(options.interval_seconds));
}

}  // namespace

void AddTop(CLI::App& parent, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command = parent.add_subcommand(
      "top",
      "Shows the cluster as it runs: pools and workers, busy, stall by cause and idle, tokens a "
      "second, TTFT, TPOT, dollars per million tokens. q quits");
  command->add_option("--interval", options->interval_seconds, "Seconds between two looks [1]")
      ->check(CLI::Range(0.1, 3600.0));
  command->add_option("--window", options->window,
                      "How far back shares and rates look, of the machine's time [10s]");
  command->add_flag("--once", options->once, "Prints one frame as text, for a pipe or a file");
  AddRouterOptions(*command, options->router);
  command->callback([options, &exit_code] { exit_code = Report(Top(*options)); });
}

}  // namespace tandem::ctl
