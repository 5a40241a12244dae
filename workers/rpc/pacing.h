#pragma once

// When to give a peer up, and when to try it again. Both take their clock and their chance as
// arguments.

#include <absl/functional/any_invocable.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "scheduler/base/random.h"
#include "scheduler/base/time.h"
#include "services/runtime/mutex.h"

namespace tandem {

struct BackoffLimits {
  Duration first = Duration::Milliseconds(50);
  Duration most = Duration::Seconds(2);
};

// Waits that double, each drawn from its upper half so that many clients of one dead peer spread.
// Not thread-safe.
class Backoff {
 public:
  Backoff(BackoffLimits limits, Random random) : limits_(limits), random_(random) {}

  Duration Next() {
    const Duration whole =
        std::min(limits_.most, limits_.first * (int64_t{1} << std::min(failures_++, 20)));
    return whole / 2 + Duration::FromSeconds(whole.seconds() / 2 * random_.Uniform());
  }
  void Reset() { failures_ = 0; }
  bool failing() const { return failures_ > 0; }

 private:
  BackoffLimits limits_;
  Random random_;
  int failures_ = 0;
};

// Dials addresses, those that failed only after their back-off. Safe from any thread.
class Dialer {
 public:
  Dialer(TimeSource& time, BackoffLimits limits, Random random)
      : time_(time), limits_(limits), random_(random) {}

  // Calls `dial` once: now, or from the clock's thread when the back-off is over.
  void Dial(const std::string& address, absl::AnyInvocable<void()> dial) TANDEM_EXCLUDES(mu_);
  void Failed(const std::string& address) TANDEM_EXCLUDES(mu_);
  void Succeeded(const std::string& address) TANDEM_EXCLUDES(mu_);

 private:
  struct Failing {
    Backoff backoff;
    Instant not_before;
  };
  TimeSource& time_;
  const BackoffLimits limits_;
  Mutex mu_;
  Random random_ TANDEM_GUARDED_BY(mu_);
  std::map<std::string, Failing> failing_ TANDEM_GUARDED_BY(mu_);  // bounded by kMaxFailing
};

// How long a peer may keep outstanding work without any answer: `base`, more for each piece in its
// queue, and the time that the bytes take on the slowest link that still counts as alive.
struct StallLimits {
  Duration base = Duration::Seconds(5);
  Duration per_piece = Duration::Milliseconds(100);
  uint64_t bytes_per_second = 8u << 20;
};

// The stall timer of one stream. Every answer restarts it; without outstanding work it sleeps. When
// its alarm comes late by more than half of `base` this process was frozen itself: the peer gets a
// fresh wait before it is judged. Safe from any thread. Made by Make: alarms hold it weakly.
class StallWatch : public std::enable_shared_from_this<StallWatch> {
 public:
  // `on_stall` is called at most once, from the clock's thread, without a lock.
  static std::shared_ptr<StallWatch> Make(TimeSource& time, StallLimits limits,
                                          absl::AnyInvocable<void(Duration waited)> on_stall);

  void Begin(uint64_t bytes) TANDEM_EXCLUDES(mu_);  // one more piece is outstanding
  void End(uint64_t bytes) TANDEM_EXCLUDES(mu_);    // one was answered
  void Stop() TANDEM_EXCLUDES(mu_);                 // no new call of on_stall from now on

 private:
  StallWatch(TimeSource& time, StallLimits limits, absl::AnyInvocable<void(Duration)> on_stall)
      : time_(time), limits_(limits), on_stall_(std::move(on_stall)) {}
  Instant Deadline() const TANDEM_REQUIRES(mu_);
  void Arm(Instant when) TANDEM_REQUIRES(mu_);
  void OnAlarm() TANDEM_EXCLUDES(mu_);

  TimeSource& time_;
  const StallLimits limits_;
  Mutex mu_;
  absl::AnyInvocable<void(Duration)> on_stall_ TANDEM_GUARDED_BY(mu_);
  bool stopped_ TANDEM_GUARDED_BY(mu_) = false;
  bool armed_ TANDEM_GUARDED_BY(mu_) = false;
  AlarmId alarm_ TANDEM_GUARDED_BY(mu_){};
  Instant armed_for_ TANDEM_GUARDED_BY(mu_);
  Instant progress_ TANDEM_GUARDED_BY(mu_);  // the last answer, or the start of the wait
  uint64_t pieces_ TANDEM_GUARDED_BY(mu_) = 0;
  uint64_t bytes_ TANDEM_GUARDED_BY(mu_) = 0;
};

// What a connector asks of its links.
struct LinkLimits {
  StallLimits stall;      // a hand-off's opening counts as one outstanding piece
  BackoffLimits backoff;  // between tries of an address that fails
};

}  // namespace tandem
