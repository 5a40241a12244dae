#pragma once

// Time that passes only when nothing is left to do at the present instant.

#include <map>
#include <utility>

#include "scheduler/base/time.h"

namespace tandem::sim {

// One thread. Alarms fire in order of time, then of call.
class VirtualTime final : public TimeSource {
 public:
  Instant Now() const override { return now_; }
  // An alarm in the past fires at the present instant.
  AlarmId CallAt(Instant when, absl::AnyInvocable<void()> fn) override;
  bool Cancel(AlarmId alarm) override;

  // Fires the next alarm. False: none is left.
  bool RunNext();
  uint64_t fired() const { return fired_; }

 private:
  using Key = std::pair<Instant, uint64_t>;
  Instant now_;
  uint64_t next_ = 1, fired_ = 0;
  std::map<Key, absl::AnyInvocable<void()>> alarms_;
  std::map<uint64_t, Instant> when_;  // of each alarm that has not fired
};

}  // namespace tandem::sim
