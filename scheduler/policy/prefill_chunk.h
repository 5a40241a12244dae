#pragma once

// How many prompt rows a prefill computes at once.

#include <cstdint>

namespace tandem::policy {

// The next chunk of a prompt with `remaining` rows (>= 1) to compute: full chunks from the front,
// the rest last. A function of the prompt alone, never of the load: chunks stay under 64 rows in
// the exact class, and equal prompts are cut alike. `chunk_tokens` >= 1. Pure.
uint32_t PrefillChunkRows(uint64_t remaining, uint32_t chunk_tokens);

}  // namespace tandem::policy
