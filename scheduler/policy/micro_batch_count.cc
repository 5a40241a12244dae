#include "scheduler/policy/micro_batch_count.h"

#include <algorithm>
#include <optional>

namespace tandem::policy {
namespace {

// The fewest that keep every call within max_rows.
uint32_t FewestMicroBatches(uint32_t rows, const MicroBatchLimits& limits) {
  return (rows - 1) / limits.max_rows + 1;
}

}  // namespace

uint32_t MostMicroBatches(uint32_t rows, const MicroBatchLimits& limits) {
  return std::max(FewestMicroBatches(rows, limits), std::min(rows, limits.max_micro_batches));
}

uint32_t MicroBatchCount(uint32_t rows, const MicroBatchLimits& limits, const CallTimes& times,
                         uint32_t layers) {
  const uint32_t most = MostMicroBatches(rows, limits);
  uint32_t best = FewestMicroBatches(rows, limits);
  std::optional<Duration> shortest = times.Step(rows, best, layers);
  if (!shortest.has_value()) return most;
  for (uint32_t count = best + 1; count <= most; count++) {
    const Duration step = *times.Step(rows, count, layers);
    if (step.seconds() >= shortest->seconds() * (1 - kMicroBatchGain)) continue;
    best = count;
    shortest = step;
  }
  return best;
}

}  // namespace tandem::policy
