#pragma once

// GgmlBackend: a dense llama GGUF on this machine's CPU, whole or one side of the attention/FFN
// cut.

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <memory>
#include <set>
#include <vector>

#include "workers/backend/ggml/ggml_device.h"
#include "workers/backend/ggml/graph_cache.h"
#include "workers/backend/ggml/layer_graphs.h"
#include "workers/backend/ggml/loaded_shard.h"
#include "workers/backend/ggml/paged_attention.h"
#include "workers/backend/stage_backend.h"

namespace tandem {

// Computes on the calling thread (and the threads of ShardSpec::threads) before it returns: every
// ticket is done. A call for a stage that was not loaded answers kFailedPrecondition; ids, layers
// and blocks out of range kInvalidArgument.
class GgmlBackend final : public StageBackend {
 public:
  static constexpr uint32_t kMaxRows = ggml_cpu::kMaxRows;

  // Opens the file, loads the stages' tensors and makes room for the KV. Errors name the file: see
  // GgufModel::Open, ShardWeights::Load and KvPool::Create. kInvalidArgument: no stage; KV blocks
  // wanted of none; a shard that the model has not, or that is not for the ffn stage alone.
  static absl::StatusOr<std::unique_ptr<GgmlBackend>> Create(const ShardSpec& spec);
  // The same of an opened file. `shard` is resolved and stands for the spec's; without a layer
  // (first_layer == last_layer), nothing is loaded for the ffn stage, and every FfnLayer is
  // kNotFound: the holder of layers that the file has not (backend/deepened).
  static absl::StatusOr<std::unique_ptr<GgmlBackend>> Create(const ShardSpec& spec,
                                                             const ggml_cpu::GgufModel& model,
                                                             const FfnShard& shard);

  const BackendInfo& info() const override { return loaded_.info; }
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

  // Logits [rows, vocabulary] of the last HeadAndSample, until the next call. For tests that
  // compare bits.
  absl::Span<const float> last_logits() const { return last_logits_; }

 private:
  GgmlBackend(std::unique_ptr<ggml_cpu::GgmlDevice> device, ggml_cpu::LoadedShard loaded,
              uint32_t block_tokens);
  ggml_cpu::GraphParts parts() {
    return {loaded_.shape, *loaded_.weights, loaded_.kv.get(), &paged_};
  }

  absl::Status RunEmbed(absl::Span<const TokenId> ids, Buffer& residual);
  absl::Status RunAttention(uint32_t layer, absl::Span<const step::KvRow> rows, Buffer& residual,
                            const Buffer* ffn_out);
  absl::Status RunFfn(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out);
  absl::Status RunHead(absl::Span<const step::SampleRow> rows, Buffer& residual,
                       const Buffer* ffn_out, std::vector<step::SampledToken>& tokens);

  std::unique_ptr<ggml_cpu::GgmlDevice> device_;
  ggml_cpu::LoadedShard loaded_;
  std::vector<ggml_cpu::PagedQuery> queries_;
  ggml_cpu::PagedAttentionCall paged_;  // the attention graphs hold its address
  ggml_cpu::GraphCache graphs_;
  absl::Span<const float> last_logits_;
};

// On the spec's device: a GgmlBackend on the CPU, a GgmlDeviceBackend on any other.
absl::StatusOr<std::unique_ptr<StageBackend>> MakeGgmlBackend(const ShardSpec& spec);

}  // namespace tandem
