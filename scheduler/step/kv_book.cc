#include "scheduler/step/kv_book.h"

#include <absl/strings/str_cat.h>

#include "scheduler/base/check.h"

namespace tandem::step {

KvBook::KvBook(uint32_t total_blocks, uint32_t block_tokens)
    : block_tokens_(block_tokens), counts_(total_blocks) {
  TANDEM_CHECK(total_blocks >= 1 && block_tokens >= 1);
  free_.reserve(total_blocks);
  for (uint32_t block = total_blocks; block > 0; block--) free_.push_back(block - 1);
}

uint32_t KvBook::BlocksFor(uint64_t tokens) const {
  return static_cast<uint32_t>((tokens + block_tokens_ - 1) / block_tokens_);
}

uint32_t KvBook::TakeBlock() {
  const uint32_t block = free_.back();
  free_.pop_back();
  TANDEM_CHECK(counts_[block] == 0);
  counts_[block] = 1;
  return block;
}

absl::Status KvBook::Grow(BlockTable& table, uint64_t tokens) {
  const uint32_t wanted = BlocksFor(tokens);
  if (wanted <= table.size()) return absl::OkStatus();
  const size_t missing = wanted - table.size();
  if (missing > free_.size()) {
    return absl::ResourceExhaustedError(absl::StrCat(
        tokens, " tokens need ", missing, " more KV blocks; ", free_.size(), " are free"));
  }
  for (size_t i = 0; i < missing; i++) table.push_back(TakeBlock());
  return absl::OkStatus();
}

absl::StatusOr<BlockTable> KvBook::Fork(const BlockTable& source, uint64_t tokens,
                                        std::vector<BlockCopy>& copies) {
  const size_t full = tokens / block_tokens_;
  const bool partial = tokens % block_tokens_ != 0;
  TANDEM_CHECK(full + (partial ? 1 : 0) <= source.size());
  if (partial && free_.empty()) {
    return absl::ResourceExhaustedError(
        absl::StrCat("a fork at ", tokens, " tokens needs 1 KV block; 0 are free"));
  }
  BlockTable fork(source.begin(), source.begin() + static_cast<ptrdiff_t>(full));
  for (uint32_t block : fork) counts_[block]++;
  if (partial) {
    fork.push_back(TakeBlock());
    copies.push_back({source[full], fork.back()});
  }
  return fork;
}

void KvBook::Release(BlockTable& table) {
  // Last block first, so that the next taker gets the first one: tables stay in order where they
  // can.
  for (size_t i = table.size(); i > 0; i--) {
    const uint32_t block = table[i - 1];
    TANDEM_CHECK(counts_[block] > 0);
    if (--counts_[block] == 0) free_.push_back(block);
  }
  table.clear();
}

}  // namespace tandem::step
