#pragma once

// The synthetic backend (a hash chain, see workers/backend/synthetic) with a hook before each call:
// a swapped row, a stale or missing block, a skipped layer or a wrong position changes every later
// token, and a test may hold a call or end it. Independent of any clock.

#include <functional>
#include <memory>
#include <set>
#include <vector>

#include "services/runtime/mutex.h"
#include "workers/backend/synthetic/synthetic_backend.h"

namespace tandem::test {

enum class FakeCallKind { kEmbed, kAttention, kFfn, kHead, kReadKv, kWriteKv, kCopyBlocks };

struct FakeCall {
  FakeCallKind kind = FakeCallKind::kEmbed;
  uint32_t layer = 0;
  uint32_t rows = 0;
  uint64_t number = 0;  // calls of this kind before it
};

// A small model with few blocks.
struct FakeOptions {
  std::set<Stage> stages{Stage::kPrefill, Stage::kAttention, Stage::kFfn};
  ModelDimensions dimensions{/*layers=*/3,          /*hidden=*/4,        /*kv_heads=*/1,
                             /*head_dim=*/4,        /*vocabulary=*/1000,
                             /*context_tokens=*/256};
  uint32_t kv_blocks = 64;
  uint32_t block_tokens = 4;
  std::vector<TokenId> end_tokens;
  FfnShard shard;            // of the FFN
  bool hidden_rows = false;  // the host cannot address them, as on a device
};

class FakeBackend final : public SyntheticBackend {
 public:
  // Asked before each call computes, on the device's thread; it may wait, and what it returns ends
  // the call.
  using Hook = std::function<absl::Status(const FakeCall&)>;

  explicit FakeBackend(const FakeOptions& options);

  // Safe from any thread; a call that is being asked about keeps the older hook.
  void SetHook(Hook hook) TANDEM_EXCLUDES(mu_);

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
  absl::Status Begin(FakeCallKind kind, uint32_t layer, size_t rows) TANDEM_EXCLUDES(mu_);

  const bool hidden_rows_;
  uint64_t calls_[7] = {};
  Mutex mu_;
  Hook hook_ TANDEM_GUARDED_BY(mu_);
};

// What a sequence must emit: `count` tokens after `prompt`, on blocks of FakeOptions' size.
std::vector<TokenId> ExpectedTokens(const ModelDimensions& dimensions,
                                    const std::vector<TokenId>& prompt, size_t count,
                                    const Sampling& sampling = {}, uint64_t seed = 0);

}  // namespace tandem::test
