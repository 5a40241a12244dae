#include "loop_backend.h"

#include <absl/strings/str_cat.h>

#include <cmath>

#include "scheduler/base/random.h"

using tandem::Buffer;
using tandem::BufferRef;
using tandem::TicketPtr;

namespace {

class Rows final : public Buffer {
 public:
  explicit Rows(size_t floats) : values_(floats) {}
  float* host() override { return values_.data(); }
  size_t bytes() const override { return values_.size() * sizeof(float); }

 private:
  std::vector<float> values_;
};

TicketPtr Done(absl::Status status) {
  return std::make_unique<tandem::DoneTicket>(std::move(status));
}

absl::Status NoAttention() {
  return absl::FailedPreconditionError("this device runs the ffn stage alone");
}

// Weight `index` of a part of a layer: the same in every shard.
float Weight(uint32_t layer, uint32_t part, uint32_t index, float size) {
  const uint64_t key = (uint64_t{layer} << 40) | (uint64_t{part} << 32) | index;
  return size * static_cast<float>(2 * tandem::Random(key).Uniform() - 1);
}

std::vector<float> Matrix(uint32_t layer, uint32_t part, tandem::ColumnRange columns) {
  std::vector<float> matrix;
  for (uint32_t i = columns.first * LoopBackend::kHidden; i < columns.last * LoopBackend::kHidden;
       ++i) {
    matrix.push_back(Weight(layer, part, i, 0.2f));
  }
  return matrix;
}

}  // namespace

absl::StatusOr<std::unique_ptr<LoopBackend>> LoopBackend::Create(
    const tandem::ShardRequest& request) {
  const auto shard = tandem::ResolveRequest(request, kLayers);
  if (!shard.ok()) return shard.status();
  const auto columns = tandem::CutColumns(*shard, kWidth, /*block_columns=*/1);
  if (!columns.ok()) return columns.status();
  return std::unique_ptr<LoopBackend>(new LoopBackend(*shard, *columns));
}

LoopBackend::LoopBackend(const tandem::FfnShard& shard, tandem::ColumnRange columns) {
  info_.name = "loops";
  info_.dimensions.layers = kLayers;
  info_.dimensions.hidden = kHidden;
  info_.dimensions.vocabulary = 256;
  info_.shard = shard;
  // Everything that decides a bit: the weights, the arithmetic, and how the sum is cut.
  info_.numerics.ffn = absl::StrCat("loops/1/f32/", tandem::GeometryOf(shard.columns));
  for (uint32_t layer = shard.first_layer; layer < shard.last_layer; ++layer) {
    Layer held;
    for (uint32_t i = 0; i < kHidden; ++i) held.norm.push_back(1 + Weight(layer, 0, i, 0.1f));
    held.gate = Matrix(layer, 1, columns);
    held.up = Matrix(layer, 2, columns);
    held.down = Matrix(layer, 3, columns);
    for (const auto* part : {&held.norm, &held.gate, &held.up, &held.down})
      info_.ffn_bytes += part->size() * sizeof(float);
    layers_.push_back(std::move(held));
  }
}

absl::StatusOr<BufferRef> LoopBackend::AllocateRows(uint32_t rows) {
  return std::make_shared<Rows>(size_t{rows} * kHidden);
}

TicketPtr LoopBackend::FfnLayer(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out) {
  if (layer >= kLayers)
    return Done(absl::InvalidArgumentError(absl::StrCat("layer ", layer, " of ", kLayers)));
  if (!info_.shard.HoldsLayer(layer)) {
    return Done(absl::NotFoundError(absl::StrCat("layer ", layer, ": this shard holds ",
                                                 tandem::ToString(info_.shard, kLayers))));
  }
  const Layer& held = layers_[layer - info_.shard.first_layer];
  for (uint32_t row = 0; row < rows; ++row)
    ComputeRow(held, in.host() + row * kHidden, out.host() + row * kHidden);
  return Done(absl::OkStatus());
}

// out = down^T (silu(gate x) * (up x)), with x = the normed row; the residual is the attention
// side's to add.
void LoopBackend::ComputeRow(const Layer& layer, const float* in, float* out) const {
  float squares = 0;
  for (uint32_t i = 0; i < kHidden; ++i) squares += in[i] * in[i];
  const float scale = 1 / std::sqrt(squares / kHidden + 1e-5f);
  std::vector<float> x(kHidden);
  for (uint32_t i = 0; i < kHidden; ++i) {
    x[i] = in[i] * scale * layer.norm[i];
    out[i] = 0;
  }
  for (size_t row = 0; row < layer.gate.size(); row += kHidden) {  // one column of the FFN each
    float gate = 0, up = 0;
    for (uint32_t i = 0; i < kHidden; ++i) {
      gate += layer.gate[row + i] * x[i];
      up += layer.up[row + i] * x[i];
    }
    const float activation = gate / (1 + std::exp(-gate)) * up;
    for (uint32_t i = 0; i < kHidden; ++i) out[i] += layer.down[row + i] * activation;
  }
}

TicketPtr LoopBackend::Embed(absl::Span<const tandem::TokenId>, Buffer&) {
  return Done(NoAttention());
}
TicketPtr LoopBackend::AttentionLayer(uint32_t, absl::Span<const tandem::step::KvRow>, Buffer&,
                                      const Buffer*) {
  return Done(NoAttention());
}
TicketPtr LoopBackend::HeadAndSample(absl::Span<const tandem::step::SampleRow>, Buffer&,
                                     const Buffer*, std::vector<tandem::step::SampledToken>&) {
  return Done(NoAttention());
}
absl::Status LoopBackend::ReadKv(uint32_t, const tandem::step::BlockTable&, uint32_t, uint32_t,
                                 absl::Span<uint8_t>) {
  return NoAttention();
}
absl::Status LoopBackend::WriteKv(uint32_t, const tandem::step::BlockTable&, uint32_t, uint32_t,
                                  absl::Span<const uint8_t>) {
  return NoAttention();
}
absl::Status LoopBackend::CopyBlocks(absl::Span<const tandem::step::KvBook::BlockCopy>) {
  return NoAttention();
}
