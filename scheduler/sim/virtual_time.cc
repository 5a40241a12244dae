#include "scheduler/sim/virtual_time.h"

#include <algorithm>

namespace tandem::sim {

AlarmId VirtualTime::CallAt(Instant when, absl::AnyInvocable<void()> fn) {
  const uint64_t id = next_++;
  when = std::max(when, now_);
  alarms_.emplace(Key{when, id}, std::move(fn));
  when_[id] = when;
  return AlarmId{id};
}

bool VirtualTime::Cancel(AlarmId alarm) {
  const auto found = when_.find(static_cast<uint64_t>(alarm));
  if (found == when_.end()) return false;
  alarms_.erase({found->second, found->first});
  when_.erase(found);
  return true;
}

bool VirtualTime::RunNext() {
  if (alarms_.empty()) return false;
  auto first = alarms_.begin();
  now_ = first->first.first;
  absl::AnyInvocable<void()> fn = std::move(first->second);
  when_.erase(first->first.second);
  alarms_.erase(first);
  fired_++;
  fn();
  return true;
}

}  // namespace tandem::sim
