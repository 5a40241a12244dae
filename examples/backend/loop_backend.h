#pragma once

// A device of our own: the FFN of a small model, in plain C++ loops. It stands where a vendor's
// driver would; everything that Tandem asks of a device that runs the ffn stage is here.

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "workers/backend/stage_backend.h"

// Weights come from a generator in place of a file. Each row is computed alone and each sum in
// ascending order, so a row's bits depend on nothing around it.
class LoopBackend final : public tandem::StageBackend {
 public:
  static constexpr uint32_t kLayers = 4, kHidden = 48, kWidth = 96;

  // kInvalidArgument: a shard that the model has not.
  static absl::StatusOr<std::unique_ptr<LoopBackend>> Create(const tandem::ShardRequest& request);

  const tandem::BackendInfo& info() const override { return info_; }
  absl::StatusOr<tandem::BufferRef> AllocateRows(uint32_t rows) override;
  tandem::TicketPtr FfnLayer(uint32_t layer, uint32_t rows, const tandem::Buffer& in,
                             tandem::Buffer& out) override;

  // The attention stage, which this device does not run: kFailedPrecondition.
  tandem::TicketPtr Embed(absl::Span<const tandem::TokenId>, tandem::Buffer&) override;
  tandem::TicketPtr AttentionLayer(uint32_t, absl::Span<const tandem::step::KvRow>, tandem::Buffer&,
                                   const tandem::Buffer*) override;
  tandem::TicketPtr HeadAndSample(absl::Span<const tandem::step::SampleRow>, tandem::Buffer&,
                                  const tandem::Buffer*,
                                  std::vector<tandem::step::SampledToken>&) override;
  absl::Status ReadKv(uint32_t, const tandem::step::BlockTable&, uint32_t, uint32_t,
                      absl::Span<uint8_t>) override;
  absl::Status WriteKv(uint32_t, const tandem::step::BlockTable&, uint32_t, uint32_t,
                       absl::Span<const uint8_t>) override;
  absl::Status CopyBlocks(absl::Span<const tandem::step::KvBook::BlockCopy>) override;

 private:
  struct Layer {
    std::vector<float> norm;            // [hidden]
    std::vector<float> gate, up, down;  // [columns held, hidden]
  };

  explicit LoopBackend(const tandem::FfnShard& shard, tandem::ColumnRange columns);
  void ComputeRow(const Layer& layer, const float* in, float* out) const;

  tandem::BackendInfo info_;
  std::vector<Layer> layers_;  // those held
};
