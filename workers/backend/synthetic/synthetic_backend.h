#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "workers/backend/stage_backend.h"

namespace tandem {

struct SyntheticOptions {
  std::set<Stage> stages;
  // `hidden` is the width of the rows that travel, which need not be the model's (README).
  ModelDimensions dimensions;
  uint32_t kv_blocks = 0;  // 0 without prefill and attention
  uint32_t block_tokens = 16;
  uint32_t kv_row_bytes = 16;  // K and V of one position and layer, as they travel; even, >= 16
  std::vector<TokenId> end_tokens;
  FfnShard shard;  // of the FFN; other than whole with the ffn stage alone
};

// Computes the hash chain of hash_chain.h on the calling thread: every ticket is done. Refuses what
// a real backend refuses: stages that it does not hold, ids, layers and blocks out of range. KV
// rows that were damaged on their way are kDataLoss.
class SyntheticBackend : public StageBackend {
 public:
  explicit SyntheticBackend(SyntheticOptions options);

  const BackendInfo& info() const override { return info_; }
  absl::StatusOr<BufferRef> AllocateRows(uint32_t rows) override;
  TicketPtr Embed(absl::Span<const TokenId> ids, Buffer& residual) override;
  TicketPtr AttentionLayer(uint32_t layer, absl::Span<const step::KvRow> rows, Buffer& residual,
                           const Buffer* ffn_out) override;
  TicketPtr FfnLayer(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out) override;
  TicketPtr HeadAndSample(absl::Span<const step::SampleRow> rows, Buffer& residual,
                          const Buffer* ffn_out, std::vector<step::SampledToken>& tokens) override;
  absl::Status ReadKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                      uint32_t count, absl::Span<uint8_t> out) override;
  absl::Status WriteKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                       uint32_t count, absl::Span<const uint8_t> in) override;
  absl::Status CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) override;

 private:
  using Block = std::vector<uint64_t>;  // [layers, block_tokens]; empty: never written

  absl::Status NeedsStage(Stage stage) const;
  absl::Status NeedsLayer(uint32_t layer) const;
  // The block of a position, made when it is first written.
  absl::StatusOr<Block*> BlockOf(uint32_t layer, const step::BlockTable& blocks, uint32_t position);
  uint64_t& Cell(Block& block, uint32_t layer, uint32_t position) const;
  absl::Status Attend(uint32_t layer, absl::Span<const step::KvRow> rows, Buffer& residual,
                      const Buffer* ffn_out);
  absl::StatusOr<uint64_t> AttendOne(uint32_t layer, const step::KvRow& row, uint64_t h);
  // A shard's piece of the FFN's row of that hash; the pieces' sum is the whole row.
  void ComputePiece(uint64_t hash, float* out) const;
  void Add(Buffer& residual, const Buffer* ffn_out, size_t rows) const;

  const SyntheticOptions options_;
  BackendInfo info_;
  std::vector<Block> blocks_;  // [kv_blocks]
};

}  // namespace tandem
