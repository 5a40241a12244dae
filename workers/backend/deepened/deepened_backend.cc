#include "workers/backend/deepened/deepened_backend.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <iterator>
#include <optional>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"

namespace tandem {
namespace {

// Rows of another buffer, from `first_float` on. The other outlives it; a call that may only read
// it gets the view as const, too.
class RowsView final : public Buffer {
 public:
  RowsView(const Buffer& rows, size_t first_float)
      : rows_(const_cast<Buffer&>(rows)), first_float_(first_float) {}
  float* host() override { return rows_.host() + first_float_; }
  size_t bytes() const override { return rows_.bytes() - first_float_ * sizeof(float); }

 private:
  Buffer& rows_;
  const size_t first_float_;
};

// The same of rows that may be null.
class OptionalView {
 public:
  OptionalView(const Buffer* rows, size_t first_float) {
    if (rows != nullptr) view_.emplace(*rows, first_float);
  }
  const Buffer* get() const { return view_.has_value() ? &*view_ : nullptr; }

 private:
  std::optional<RowsView> view_;
};

TicketPtr Done(absl::Status status) { return std::make_unique<DoneTicket>(std::move(status)); }

}  // namespace

FfnShard RealPart(const FfnShard& shard, uint32_t real_layers) {
  FfnShard real = shard;
  real.first_layer = std::min(shard.first_layer, real_layers);
  real.last_layer = std::min(shard.last_layer, real_layers);
  return real;
}

absl::StatusOr<std::unique_ptr<DeepenedBackend>> DeepenedBackend::Create(
    std::unique_ptr<StageBackend> real, uint32_t layers, const FfnShard& shard) {
  const BackendInfo& info = real->info();
  if (layers < info.dimensions.layers) {
    return absl::InvalidArgumentError(
        absl::StrCat(layers, " emulated layers are fewer than the ", info.dimensions.layers,
                     " real ones of ", info.model_name.empty() ? "the model" : info.model_name));
  }
  TANDEM_CHECK(info.shard == RealPart(shard, info.dimensions.layers));
  return std::unique_ptr<DeepenedBackend>(new DeepenedBackend(std::move(real), layers, shard));
}

DeepenedBackend::DeepenedBackend(std::unique_ptr<StageBackend> real, uint32_t layers,
                                 const FfnShard& shard)
    : real_(std::move(real)), real_layers_(real_->info().dimensions.layers), info_(real_->info()) {
  info_.name = absl::StrCat("deepened/", info_.name);
  info_.dimensions.layers = layers;
  info_.shard = shard;
}

absl::Status DeepenedBackend::CheckPassing(uint32_t layer, Stage stage) const {
  const NumericsClass& numerics = info_.numerics;  // parts of the loaded stages only
  const std::string& part = stage == Stage::kFfn ? numerics.ffn : numerics.attention;
  if (part.empty() && numerics.prefill.empty()) {
    return absl::FailedPreconditionError(
        absl::StrCat("this worker did not load the ", ToString(stage), " stage"));
  }
  if (layer >= info_.dimensions.layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("layer ", layer, " of ", info_.dimensions.layers));
  }
  return absl::OkStatus();
}

TicketPtr DeepenedBackend::InPieces(
    size_t rows, const std::function<TicketPtr(size_t first, size_t count)>& call) const {
  size_t first = 0;
  absl::Status status;
  do {
    const size_t count = std::min<size_t>(kMaxRows, rows - first);
    status = call(first, count)->Wait();
    first += count;
  } while (status.ok() && first < rows);
  return Done(std::move(status));
}

absl::StatusOr<BufferRef> DeepenedBackend::AllocateRows(uint32_t rows) {
  return real_->AllocateRows(rows);
}

TicketPtr DeepenedBackend::Embed(absl::Span<const TokenId> ids, Buffer& residual) {
  return InPieces(ids.size(), [&](size_t first, size_t count) {
    RowsView view(residual, floats(first));
    return real_->Embed(ids.subspan(first, count), view);
  });
}

// Pieces in ascending order, so that rows of one sequence find the KV of those before them.
TicketPtr DeepenedBackend::AttentionLayer(uint32_t layer, absl::Span<const step::KvRow> rows,
                                          Buffer& residual, const Buffer* ffn_out) {
  if (!IsReal(layer)) {
    absl::Status status = CheckPassing(layer, Stage::kAttention);
    const size_t values = status.ok() && ffn_out != nullptr ? floats(rows.size()) : 0;
    for (size_t i = 0; i < values; i++) residual.host()[i] += ffn_out->host()[i];
    return Done(std::move(status));
  }
  return InPieces(rows.size(), [&](size_t first, size_t count) {
    RowsView view(residual, floats(first));
    const OptionalView added(ffn_out, floats(first));
    return real_->AttentionLayer(layer, rows.subspan(first, count), view, added.get());
  });
}

TicketPtr DeepenedBackend::FfnLayer(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out) {
  const uint32_t layers = info_.dimensions.layers;
  if (layer < layers && !info_.shard.HoldsLayer(layer)) {
    return Done(absl::NotFoundError(
        absl::StrCat("layer ", layer, ": this shard holds ", ToString(info_.shard, layers))));
  }
  if (!IsReal(layer)) {
    absl::Status status = CheckPassing(layer, Stage::kFfn);
    if (status.ok()) std::fill_n(out.host(), floats(rows), 0.0f);
    return Done(std::move(status));
  }
  return InPieces(rows, [&](size_t first, size_t count) {
    const RowsView from(in, floats(first));
    RowsView to(out, floats(first));
    return real_->FfnLayer(layer, static_cast<uint32_t>(count), from, to);
  });
}

TicketPtr DeepenedBackend::HeadAndSample(absl::Span<const step::SampleRow> rows, Buffer& residual,
                                         const Buffer* ffn_out,
                                         std::vector<step::SampledToken>& tokens) {
  tokens.clear();
  std::vector<step::SampledToken> piece;
  return InPieces(rows.size(), [&](size_t first, size_t count) {
    RowsView view(residual, floats(first));
    const OptionalView added(ffn_out, floats(first));
    absl::Status status =
        real_->HeadAndSample(rows.subspan(first, count), view, added.get(), piece)->Wait();
    if (status.ok()) std::move(piece.begin(), piece.end(), std::back_inserter(tokens));
    return Done(std::move(status));
  });
}

absl::Status DeepenedBackend::ReadKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                                     uint32_t count, absl::Span<uint8_t> out) {
  if (IsReal(layer)) return real_->ReadKv(layer, blocks, first, count, out);
  RETURN_IF_ERROR(CheckPassing(layer, Stage::kAttention));
  RETURN_IF_ERROR(real_->ReadKv(0, blocks, first, count, out));  // checks positions and size
  std::fill(out.begin(), out.end(), uint8_t{0});
  return absl::OkStatus();
}

absl::Status DeepenedBackend::WriteKv(uint32_t layer, const step::BlockTable& blocks,
                                      uint32_t first, uint32_t count,
                                      absl::Span<const uint8_t> in) {
  if (IsReal(layer)) return real_->WriteKv(layer, blocks, first, count, in);
  RETURN_IF_ERROR(CheckPassing(layer, Stage::kAttention));
  kv_rows_.resize(in.size());
  RETURN_IF_ERROR(real_->ReadKv(0, blocks, first, count, absl::MakeSpan(kv_rows_)));
  if (std::all_of(in.begin(), in.end(), [](uint8_t byte) { return byte == 0; }))
    return absl::OkStatus();
  return absl::DataLossError(absl::StrCat("KV of layer ", layer, ", of which the model computes ",
                                          real_layers_,
                                          ", is not zero: it was damaged, or is another layer's"));
}

absl::Status DeepenedBackend::CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) {
  return real_->CopyBlocks(copies);
}

}  // namespace tandem
