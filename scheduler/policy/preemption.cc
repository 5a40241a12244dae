#include "scheduler/policy/preemption.h"

#include <algorithm>

namespace tandem::policy {

std::optional<size_t> PreemptionVictim(absl::Span<const HeldSequence> held) {
  if (held.size() < 2) return std::nullopt;
  const auto newest = std::max_element(
      held.begin(), held.end(),
      [](const HeldSequence& a, const HeldSequence& b) { return a.admitted < b.admitted; });
  return static_cast<size_t>(newest - held.begin());
}

}  // namespace tandem::policy
