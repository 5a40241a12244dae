#include "scheduler/policy/prefill_placement.h"

namespace tandem::policy {

std::optional<WorkerId> PlacePrefill(absl::Span<const PrefillView> workers) {
  const PrefillView* best = nullptr;
  for (const PrefillView& worker : workers) {
    if (worker.prompts >= worker.slots) continue;
    // prompts / slots, compared without division.
    if (best == nullptr ||
        uint64_t{worker.prompts} * best->slots < uint64_t{best->prompts} * worker.slots) {
      best = &worker;
    }
  }
  if (best == nullptr) return std::nullopt;
  return best->id;
}

}  // namespace tandem::policy
