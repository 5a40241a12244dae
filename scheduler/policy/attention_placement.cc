#include "scheduler/policy/attention_placement.h"

#include <algorithm>
#include <tuple>

namespace tandem::policy {
namespace {

uint64_t BlocksFor(uint64_t tokens, uint32_t block_tokens) {
  return (tokens + block_tokens - 1) / block_tokens;
}

bool HasRoom(const AttentionView& worker, const AttentionDemand& demand) {
  return FitsEmpty(worker, demand) &&
         worker.kv_blocks_free >= BlocksAtStart(demand, worker.block_tokens) &&
         worker.sequences + demand.choices <= worker.max_sequences;
}

// In units of 1e-6: integers, so that every machine compares alike.
int64_t LoadMillionths(const AttentionView& worker, const AttentionDemand& demand) {
  const int64_t used = static_cast<int64_t>(worker.kv_blocks) - worker.kv_blocks_free +
                       BlocksAtStart(demand, worker.block_tokens);
  const int64_t sequences = worker.sequences + demand.choices;
  return std::max(used * 1'000'000 / worker.kv_blocks,
                  sequences * 1'000'000 / worker.max_sequences);
}

}  // namespace

uint64_t LongestSequence(const AttentionView& worker) {
  return std::min<uint64_t>(worker.context_tokens,
                            uint64_t{worker.kv_blocks} * worker.block_tokens);
}

uint32_t BlocksAtStart(const AttentionDemand& demand, uint32_t block_tokens) {
  return static_cast<uint32_t>(BlocksFor(demand.start_tokens, block_tokens)) + demand.choices;
}

bool FitsEmpty(const AttentionView& worker, const AttentionDemand& demand) {
  return demand.final_tokens <= LongestSequence(worker) && demand.choices <= worker.max_sequences &&
         BlocksAtStart(demand, worker.block_tokens) <= worker.kv_blocks;
}

std::optional<WorkerId> PlaceAttention(absl::Span<const AttentionView> workers,
                                       const AttentionDemand& demand) {
  const AttentionView* best = nullptr;
  const auto rank = [&](const AttentionView& worker) {
    return std::tuple(LoadMillionths(worker, demand), -worker.kv_blocks_free);
  };
  for (const AttentionView& worker : workers) {
    if (!HasRoom(worker, demand)) continue;
    if (best == nullptr || rank(worker) < rank(*best)) best = &worker;
  }
  if (best == nullptr) return std::nullopt;
  return best->id;
}

}  // namespace tandem::policy
