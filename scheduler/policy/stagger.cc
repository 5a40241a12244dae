#include "scheduler/policy/stagger.h"

#include <algorithm>

namespace tandem::policy {

Duration StaggerDelay(const StaggerView& step) {
  const bool in_phase = 2 * step.shared > step.calls;
  if (step.phase == 0 || !in_phase || step.steps_since_delay < kStaggerSteps) return {};
  return std::min(step.duration * step.phase / step.phases, kMaxStagger);
}

}  // namespace tandem::policy
