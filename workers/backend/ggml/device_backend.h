#pragma once

// GgmlDeviceBackend: a dense llama GGUF on any device of ggml's registry but the CPU, whose memory
// the host cannot address.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "workers/backend/ggml/device_rows.h"
#include "workers/backend/ggml/ggml_device.h"
#include "workers/backend/ggml/graph_cache.h"
#include "workers/backend/ggml/loaded_shard.h"
#include "workers/backend/ggml/slot_graphs.h"
#include "workers/backend/stage_backend.h"

namespace tandem {

// Rows, KV, weights and logits stay on the device. What crosses:
//   to it    ids of Embed; positions, masks and places of a step's rows, once a step and not once a
//            layer; rows and KV that a connector brings
//   from it  the likeliest few of each row of logits; rows and KV that a connector takes
// A row of logits is copied whole, and counted, when its sampler needs all of it: with penalties,
// logit bias or logprobs, with a temperature but no top_k below kTopCandidates, or with equal
// values at a cut.
//
// Embed, AttentionLayer and FfnLayer return while the device computes. HeadAndSample waits: the
// host draws. Errors are GgmlBackend's.
class GgmlDeviceBackend final : public StageBackend {
 public:
  // Of each row of logits, what comes back.
  static constexpr uint32_t kTopCandidates = 64;

  // kNotFound: ggml has no such device here; the message lists those that it has.
  // kResourceExhausted: its memory does not hold weights and KV, with both numbers.
  static absl::StatusOr<std::unique_ptr<GgmlDeviceBackend>> Create(const ShardSpec& spec);

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

  const ggml_cpu::TransferCounts& transfers() const { return device_->transfers(); }
  // Logits [rows, vocabulary] of the last HeadAndSample, copied now: nothing was called since. For
  // tests that compare bits.
  std::vector<float> CopyLogits();

 private:
  // Host memory that a call in flight reads.
  using Staged = std::vector<std::vector<uint8_t>>;

  GgmlDeviceBackend(std::shared_ptr<ggml_cpu::GgmlDevice> device, ggml_cpu::LoadedShard loaded);
  ggml_cpu::GraphParts parts() {
    return {loaded_.shape, *loaded_.weights, loaded_.kv.get(), nullptr};
  }

  absl::Status StartEmbed(absl::Span<const TokenId> ids, Buffer& residual, Staged& staged);
  absl::Status StartAttention(uint32_t layer, absl::Span<const step::KvRow> rows, Buffer& residual,
                              const Buffer* ffn_out, Staged& staged);
  absl::Status StartFfn(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out);
  absl::Status RunHead(absl::Span<const step::SampleRow> rows, Buffer& residual,
                       const Buffer* ffn_out, std::vector<step::SampledToken>& tokens);
  void UploadInputs(ggml_cpu::GraphSet& set, const ggml_cpu::SlotInputs& inputs, Staged& staged);
  template <typename T>
  void Upload(ggml_tensor* tensor, const std::vector<T>& values, Staged& staged);
  std::vector<float> LogitsRow(uint32_t row);
  // What a call that was started answers with.
  TicketPtr Started(absl::Status status, Staged staged);

  std::shared_ptr<ggml_cpu::GgmlDevice> device_;  // rows in flight hold it too
  ggml_cpu::LoadedShard loaded_;
  ggml_cpu::GraphCache graphs_;
  ggml_tensor* logits_ = nullptr;  // of the last HeadAndSample, in scratch
};

}  // namespace tandem
