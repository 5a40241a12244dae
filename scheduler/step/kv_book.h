#pragma once

// The KV book of one worker: which block belongs to whom. Pure bookkeeping; the backend owns the
// memory.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <vector>

#include "scheduler/step/types.h"

namespace tandem::step {

// Blocks are shared by count: choices of one request hold the same full blocks of the prompt.
// Invariant: free + sum over blocks of [count > 0] = total; a block is handed out only at count 0.
class KvBook {
 public:
  // `total_blocks` >= 1, `block_tokens` >= 1.
  KvBook(uint32_t total_blocks, uint32_t block_tokens);

  uint32_t total_blocks() const { return static_cast<uint32_t>(counts_.size()); }
  uint32_t free_blocks() const { return static_cast<uint32_t>(free_.size()); }
  uint32_t block_tokens() const { return block_tokens_; }
  uint32_t BlocksFor(uint64_t tokens) const;

  // Takes blocks so that `table` covers `tokens` positions, all or nothing. kResourceExhausted
  // names both numbers.
  absl::Status Grow(BlockTable& table, uint64_t tokens);

  // A block to copy before two tables part: the partial last block of the source.
  struct BlockCopy {
    uint32_t from = 0, to = 0;
  };
  // A second table over the first `tokens` positions of `source`: full blocks are shared, a partial
  // last one is new and named in `copies` (append). kResourceExhausted when there is no block for
  // the copy.
  absl::StatusOr<BlockTable> Fork(const BlockTable& source, uint64_t tokens,
                                  std::vector<BlockCopy>& copies);

  // Gives back all blocks of `table` and empties it.
  void Release(BlockTable& table);

 private:
  uint32_t TakeBlock();  // some block is free

  uint32_t block_tokens_;
  std::vector<uint32_t> counts_;  // [total_blocks] holders of each block
  std::vector<uint32_t> free_;    // stack; lowest block on top at first
};

}  // namespace tandem::step
