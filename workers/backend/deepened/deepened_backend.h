#pragma once

// A real model as the numbers of a deeper one: its layers, then layers that pass rows through.

#include <absl/status/statusor.h>

#include <functional>
#include <memory>
#include <vector>

#include "workers/backend/stage_backend.h"

namespace tandem {

// What of a deeper model's shard the real model computes: its layers below `real_layers`, and of
// them the same piece of columns. No layer at all (first_layer == last_layer) where the shard lies
// past them. `shard` is resolved.
FfnShard RealPart(const FfnShard& shard, uint32_t real_layers);

// Of `layers` layers, those that `real` has are its own. At each of the others
//
//   attention   residual += ffn_out, and no more
//   FFN         zeros
//   KV          zeros, of the size of a real layer's; other bytes written are kDataLoss
//
// so the head gets what the real model's head would: tokens, logits and the numerics class are
// `real`'s. Rows and KV rows are as wide as `real`'s.
//
// A call may have any number of rows: `real` gets at most kMaxRows of them at once, the chunk that
// its bits are promised for, so that an emulated device may have chunks and batches of its own
// size.
//
// Computes on the calling thread: every ticket is done. Refuses what any backend refuses.
class DeepenedBackend : public StageBackend {
 public:
  static constexpr uint32_t kMaxRows = 32;

  // `real` holds RealPart(shard). kInvalidArgument, with both numbers: fewer layers than `real`
  // has.
  static absl::StatusOr<std::unique_ptr<DeepenedBackend>> Create(std::unique_ptr<StageBackend> real,
                                                                 uint32_t layers,
                                                                 const FfnShard& shard);

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

 protected:
  DeepenedBackend(std::unique_ptr<StageBackend> real, uint32_t layers, const FfnShard& shard);

 private:
  // `call` of rows [first, first + count), kMaxRows at a time, until one fails; once for no rows.
  TicketPtr InPieces(size_t rows,
                     const std::function<TicketPtr(size_t first, size_t count)>& call) const;
  bool IsReal(uint32_t layer) const { return layer < real_layers_; }
  // Of a layer that is not real, what the real backend checks itself.
  absl::Status CheckPassing(uint32_t layer, Stage stage) const;
  size_t floats(size_t rows) const { return rows * info_.dimensions.hidden; }

  const std::unique_ptr<StageBackend> real_;
  const uint32_t real_layers_;
  BackendInfo info_;
  std::vector<uint8_t> kv_rows_;  // read to have the real backend check positions
};

}  // namespace tandem
