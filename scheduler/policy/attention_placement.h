#pragma once

// Which attention worker takes a request.

#include <absl/types/span.h>

#include <optional>

#include "scheduler/view/cluster.h"

namespace tandem::policy {

// Tokens of the longest sequence that an empty worker takes: its context, or all of its KV.
uint64_t LongestSequence(const AttentionView& worker);

// Blocks reserved at admission: the tokens of the start, and one block of growth for each choice
// (PROTOCOL section 2).
uint32_t BlocksAtStart(const AttentionDemand& demand, uint32_t block_tokens);

// True when `demand` would fit the worker if it were empty.
bool FitsEmpty(const AttentionView& worker, const AttentionDemand& demand);

// The least loaded worker that has room: load is the larger of the used shares of KV and of
// sequences, with the demand in it. Ties: more free blocks, then the lower WorkerId. nullopt: none
// has room now. Pure: equal arguments give equal answers. Safe from any thread.
std::optional<WorkerId> PlaceAttention(absl::Span<const AttentionView> workers,
                                       const AttentionDemand& demand);

}  // namespace tandem::policy
