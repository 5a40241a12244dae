#pragma once

// GgmlBackend: a dense llama GGUF on this machine's CPU, whole or one side of the attention/FFN
// cut.

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <memory>
#include <set>
#include <vector>

#include "workers/backend/ggml/ggml_device.h"
#include "workers/backend/ggml/gguf_model.h"
#include "workers/backend/ggml/graph_cache.h"
#include "workers/backend/ggml/kv_pool.h"
#include "workers/backend/ggml/layer_graphs.h"
#include "workers/backend/ggml/llama_shape.h"
#include "workers/backend/ggml/paged_attention.h"
#include "workers/backend/ggml/shard_weights.h"
#include "workers/backend/stage_backend.h"

namespace tandem {

// Computes on the calling thread (and the threads of ShardSpec::threads) before it returns: every
// ticket is done. A call for a stage that was not loaded answers kFailedPrecondition; ids, layers
// and blocks out of range kInvalidArgument.
class GgmlBackend final : public StageBackend {
 public:
  // Most rows of one call. Prefill chunks and batches are far smaller; it bounds the scratch
  // buffer.
  static constexpr uint32_t kMaxRows = 512;

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

  // Logits [rows, vocabulary] of the last HeadAndSample, until the next call. For tests that
  // compare bits.
  absl::Span<const float> last_logits() const { return last_logits_; }

 private:
  GgmlBackend(std::unique_ptr<ggml_cpu::GgmlDevice> device, const ggml_cpu::GgufModel& model,
              std::unique_ptr<ggml_cpu::ShardWeights> weights, std::unique_ptr<ggml_cpu::KvPool> kv,
              const ShardSpec& spec);
  static absl::Status CheckSpec(const ShardSpec& spec, bool whole);
  absl::Status CheckLoaded(ggml_cpu::TensorGroup group, const char* call) const;
  absl::Status CheckRows(size_t rows) const;
  absl::Status CheckKv() const;
  ggml_cpu::GraphParts parts() { return {shape_, *weights_, kv_.get(), &paged_}; }

  absl::Status RunEmbed(absl::Span<const TokenId> ids, Buffer& residual);
  absl::Status RunAttention(uint32_t layer, absl::Span<const step::KvRow> rows, Buffer& residual,
                            const Buffer* ffn_out);
  absl::Status RunFfn(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out);
  absl::Status RunHead(absl::Span<const step::SampleRow> rows, Buffer& residual,
                       const Buffer* ffn_out, std::vector<step::SampledToken>& tokens);

  std::unique_ptr<ggml_cpu::GgmlDevice> device_;
  ggml_cpu::LlamaShape shape_;
  std::unique_ptr<ggml_cpu::ShardWeights> weights_;
  std::unique_ptr<ggml_cpu::KvPool> kv_;  // null without attention
  std::vector<ggml_cpu::PagedQuery> queries_;
  ggml_cpu::PagedAttentionCall paged_;  // the attention graphs hold its address
  ggml_cpu::GraphCache graphs_;
  BackendInfo info_;
  absl::Span<const float> last_logits_;
};

absl::StatusOr<std::unique_ptr<StageBackend>> MakeGgmlBackend(const ShardSpec& spec);

}  // namespace tandem
