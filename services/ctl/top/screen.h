#pragma once

// The terminal of `tandemctl top`: ncurses, and nothing of what is shown.

#include <absl/status/statusor.h>

#include <memory>
#include <vector>

#include "scheduler/base/time.h"
#include "services/ctl/top/frame.h"

namespace tandem::ctl {

// Whether the locale's characters are UTF-8; sets the process's locale by its environment.
bool LocaleIsUtf8();

// While it lives, the terminal is the program's; then it is as it was. One at a time, of one
// thread.
class TopScreen {
 public:
  // kFailedPrecondition: stdin or stdout is no terminal, or one that nobody knows.
  static absl::StatusOr<std::unique_ptr<TopScreen>> Open();
  ~TopScreen();
  TopScreen(const TopScreen&) = delete;
  TopScreen& operator=(const TopScreen&) = delete;

  FrameSize size() const;
  void Draw(const std::vector<TopLine>& lines);

  enum class Event { kNone, kQuit, kResized };
  // Until a key, a new size or a signal to end (SIGINT, SIGTERM, SIGHUP), or `timeout` has passed.
  Event Wait(Duration timeout);

 private:
  explicit TopScreen(bool utf8) : utf8_(utf8) {}
  const bool utf8_;
};

}  // namespace tandem::ctl
