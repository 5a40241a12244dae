#pragma once

// When an attention worker steps out of phase with the others that use the same layer shards.

#include <cstdint>

#include "scheduler/base/time.h"

namespace tandem::policy {

// The step that has just ended.
struct StaggerView {
  uint32_t phase = 0, phases = 1;  // this worker's place among `phases`: the router's word
  uint32_t calls = 0;              // replies of layer calls
  uint32_t shared = 0;             // of those, computed with or behind another sender's rows
  Duration duration;
  uint64_t steps_since_delay = 0;
};

// How long the next step is held back: phase/phases of the step, at most kMaxStagger (a step that
// waited for a lost worker says nothing), if more than half of its calls were shared and it was not
// held back in the last kStaggerSteps; else zero. Phase 0 never yields, so somebody always stays.
// Pure.
inline constexpr uint64_t kStaggerSteps = 16;
inline constexpr Duration kMaxStagger = Duration::Seconds(1);
Duration StaggerDelay(const StaggerView& step);

}  // namespace tandem::policy
