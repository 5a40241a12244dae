#include "scheduler/policy/prefill_chunk.h"

#include <algorithm>

namespace tandem::policy {

uint32_t PrefillChunkRows(uint64_t remaining, uint32_t chunk_tokens) {
  return static_cast<uint32_t>(std::min<uint64_t>(remaining, chunk_tokens));
}

}  // namespace tandem::policy
