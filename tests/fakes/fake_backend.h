#pragma once

// A StageBackend whose numbers are a hash chain: a swapped row, a stale or missing block, a skipped
// layer or a wrong position changes every later token, so tests of engines and failover can trust
// it. DESIGN section 7, with real addition:
//
//   embedding      row(token)
//   attention      h = hash(residual + ffn_out); K, V of (layer, position) = hash(h, layer,
//   position), kept in the blocks;
//                  row(hash(every K and V of positions 0 to position, layer, position, h))
//   FFN            row(hash(layer, its input)); a piece of its columns: rows that add up to that
//   token          hash(residual + ffn_out [, seed, output position]) mod vocabulary
//
// A row holds integers below 2^22 in F32, so sums of two are exact. Independent of any clock.

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "services/runtime/mutex.h"
#include "workers/backend/stage_backend.h"

namespace tandem::test {

enum class FakeCallKind { kEmbed, kAttention, kFfn, kHead, kReadKv, kWriteKv, kCopyBlocks };

struct FakeCall {
  FakeCallKind kind = FakeCallKind::kEmbed;
  uint32_t layer = 0;
  uint32_t rows = 0;
  uint64_t number = 0;  // calls of this kind before it
};

struct FakeOptions {
  std::set<Stage> stages{Stage::kPrefill, Stage::kAttention, Stage::kFfn};
  ModelDimensions dimensions{/*layers=*/3,          /*hidden=*/4,        /*kv_heads=*/1,
                             /*head_dim=*/4,        /*vocabulary=*/1000,
                             /*context_tokens=*/256};
  uint32_t kv_blocks = 64;
  uint32_t block_tokens = 4;
  std::vector<TokenId> end_tokens;
  FfnShard shard;  // of the FFN
};

class FakeBackend final : public StageBackend {
 public:
  // Asked before each call computes, on the device's thread; it may wait, and what it returns ends
  // the call.
  using Hook = std::function<absl::Status(const FakeCall&)>;

  explicit FakeBackend(FakeOptions options);

  // Safe from any thread; a call that is being asked about keeps the older hook.
  void SetHook(Hook hook) TANDEM_EXCLUDES(mu_);

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
  struct Kv {
    uint64_t k = 0, v = 0;
  };
  absl::Status Begin(FakeCallKind kind, uint32_t layer, uint32_t rows) TANDEM_EXCLUDES(mu_);
  absl::Status NeedsStage(bool attention) const;
  void ComputePiece(uint64_t hash, float* out) const;  // [hidden]
  absl::StatusOr<Kv*> Cell(uint32_t layer, const step::BlockTable& blocks, uint32_t position);
  absl::Status Attend(uint32_t layer, absl::Span<const step::KvRow> rows, Buffer& residual,
                      const Buffer* ffn_out);

  const FakeOptions options_;
  BackendInfo info_;
  std::vector<Kv> kv_;  // [layers, kv_blocks, block_tokens]
  uint64_t calls_[7] = {};
  Mutex mu_;
  Hook hook_ TANDEM_GUARDED_BY(mu_);
};

// What a sequence must emit: `count` tokens after `prompt`, computed without blocks, buffers or
// batches.
std::vector<TokenId> ExpectedTokens(const ModelDimensions& dimensions,
                                    const std::vector<TokenId>& prompt, size_t count,
                                    const Sampling& sampling = {}, uint64_t seed = 0);

}  // namespace tandem::test
