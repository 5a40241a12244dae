#include "scheduler/policy/micro_batch_count.h"

#include <algorithm>

namespace tandem::policy {

uint32_t MicroBatchCount(uint32_t rows, const MicroBatchLimits& limits) {
  const uint32_t needed = (rows - 1) / limits.max_rows + 1;
  return std::max(needed, std::min(rows, limits.max_micro_batches));
}

}  // namespace tandem::policy
