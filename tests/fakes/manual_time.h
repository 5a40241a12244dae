#pragma once

// A clock that the test moves.

#include <map>
#include <utility>
#include <vector>

#include "scheduler/base/time.h"
#include "services/runtime/mutex.h"

namespace tandem::test {

// Safe from any thread.
class ManualTime final : public TimeSource {
 public:
  Instant Now() const override {
    MutexLock lock(mu_);
    return now_;
  }
  AlarmId CallAt(Instant when, absl::AnyInvocable<void()> fn) override {
    MutexLock lock(mu_);
    const uint64_t id = next_id_++;
    alarms_.emplace(std::pair(when, id), std::move(fn));
    return AlarmId{id};
  }
  bool Cancel(AlarmId alarm) override {
    MutexLock lock(mu_);
    return std::erase_if(alarms_, [&](const auto& entry) {
             return entry.first.second == static_cast<uint64_t>(alarm);
           }) > 0;
  }

  size_t alarms() const {  // set, and not due yet
    MutexLock lock(mu_);
    return alarms_.size();
  }

  // Moves the clock on, then fires what is due, in order, on the caller's thread.
  void Advance(Duration by) {
    MutexLock lock(mu_);
    now_ = now_ + by;
    while (!alarms_.empty() && alarms_.begin()->first.first <= now_) {
      auto alarm = alarms_.extract(alarms_.begin());
      lock.Unlock();
      alarm.mapped()();
      lock.Lock();
    }
  }

 private:
  mutable Mutex mu_;
  Instant now_ TANDEM_GUARDED_BY(mu_);
  uint64_t next_id_ TANDEM_GUARDED_BY(mu_) = 1;
  std::map<std::pair<Instant, uint64_t>, absl::AnyInvocable<void()>> alarms_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::test
