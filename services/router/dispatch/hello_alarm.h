#pragma once

// Ends a stream whose peer does not say who it is.

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include <memory>
#include <optional>
#include <utility>

#include "scheduler/base/time.h"
#include "services/runtime/mutex.h"

namespace tandem::router {

// Safe from any thread.
class HelloAlarm {
 public:
  // After `limit` the stream ends with kDeadlineExceeded, unless Cancel came first.
  template <typename Stream>
  void Arm(TimeSource& time, Duration limit, std::weak_ptr<Stream> stream) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (cancelled_) return;
    time_ = &time;
    alarm_ = time.CallAt(time.Now() + limit, [limit, stream = std::move(stream)] {
      if (const std::shared_ptr<Stream> alive = stream.lock()) {
        alive->EndNow(absl::DeadlineExceededError(
            absl::StrCat("no first message within ", limit.seconds(), " s")));
      }
    });
  }
  void Cancel() TANDEM_EXCLUDES(mu_) {
    std::optional<AlarmId> alarm;
    {
      MutexLock lock(mu_);
      cancelled_ = true;
      alarm = std::exchange(alarm_, std::nullopt);
    }
    if (alarm.has_value()) time_->Cancel(*alarm);
  }

 private:
  Mutex mu_;
  TimeSource* time_ = nullptr;
  std::optional<AlarmId> alarm_ TANDEM_GUARDED_BY(mu_);
  bool cancelled_ TANDEM_GUARDED_BY(mu_) = false;
};

}  // namespace tandem::router
