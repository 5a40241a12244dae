#pragma once

// K: into how many micro-batches a step's rows are cut, so that attention and FFN overlap.

#include <cstdint>

#include "scheduler/policy/call_times.h"

namespace tandem::policy {

struct MicroBatchLimits {
  uint32_t max_micro_batches =
      1;                  // in flight at once, >= 1; 1 for a loopback FFN, which cannot overlap
  uint32_t max_rows = 1;  // of one call: the smallest FFN holder's bound, >= 1
};

// A larger K must shorten the step by more than this share: the calls of a smaller one are fewer,
// and leave the FFN worker more to others.
inline constexpr double kMicroBatchGain = 0.02;

// Micro-batches of a step of `rows` (>= 1). One row cannot be cut; else as many as may be in
// flight, and more where a call would exceed max_rows (those wait their turn). Cut evenly into this
// many, no micro-batch exceeds max_rows. Pure.
uint32_t MostMicroBatches(uint32_t rows, const MicroBatchLimits& limits);

// Of those the count whose step is shortest by what the calls took; the most while `times` does not
// know. README.md says why. Pure.
uint32_t MicroBatchCount(uint32_t rows, const MicroBatchLimits& limits, const CallTimes& times,
                         uint32_t layers);

}  // namespace tandem::policy
