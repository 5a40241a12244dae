#include "workers/backend/ggml/ggml_backend.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"
#include "workers/backend/ggml/row_kernels.h"
#include "workers/backend/sampler.h"

namespace tandem {

using ggml_cpu::AddRows;
using ggml_cpu::GgmlDevice;
using ggml_cpu::GgufModel;
using ggml_cpu::GraphKind;
using ggml_cpu::GraphSet;
using ggml_cpu::LoadedShard;

namespace {

constexpr size_t kBufferAlignment = 64;

class HostBuffer final : public Buffer {
 public:
  HostBuffer(float* data, size_t bytes) : data_(data), bytes_(bytes) {}
  ~HostBuffer() override { std::free(data_); }
  HostBuffer(const HostBuffer&) = delete;
  HostBuffer& operator=(const HostBuffer&) = delete;
  float* host() override { return data_; }
  size_t bytes() const override { return bytes_; }

 private:
  float* data_;
  size_t bytes_;
};

TicketPtr Done(absl::Status status) { return std::make_unique<DoneTicket>(std::move(status)); }

}  // namespace

absl::StatusOr<std::unique_ptr<GgmlBackend>> GgmlBackend::Create(const ShardSpec& spec) {
  ASSIGN_OR_RETURN(const ggml_cpu::OpenedModel opened, ggml_cpu::OpenModel(spec));
  return Create(spec, *opened.model, opened.shard);
}

absl::StatusOr<std::unique_ptr<GgmlBackend>> GgmlBackend::Create(const ShardSpec& spec,
                                                                 const GgufModel& model,
                                                                 const FfnShard& shard) {
  ASSIGN_OR_RETURN(std::unique_ptr<GgmlDevice> device, GgmlDevice::Create(spec.threads));
  ASSIGN_OR_RETURN(LoadedShard loaded, LoadedShard::Load(spec, model, shard, *device));
  return std::unique_ptr<GgmlBackend>(
      new GgmlBackend(std::move(device), std::move(loaded), spec.block_tokens));
}

GgmlBackend::GgmlBackend(std::unique_ptr<GgmlDevice> device, LoadedShard loaded,
                         uint32_t block_tokens)
    : device_(std::move(device)), loaded_(std::move(loaded)), graphs_(*device_) {
  const ggml_cpu::LlamaShape& shape = loaded_.shape;
  paged_ = {nullptr,        block_tokens,   shape.heads,
            shape.kv_heads, shape.head_dim, 1.0f / std::sqrt(static_cast<float>(shape.head_dim))};
}

absl::StatusOr<BufferRef> GgmlBackend::AllocateRows(uint32_t rows) {
  const size_t wanted = size_t{rows} * loaded_.shape.hidden * sizeof(float);
  const size_t bytes = (wanted + kBufferAlignment - 1) / kBufferAlignment * kBufferAlignment;
  float* data =
      static_cast<float*>(std::aligned_alloc(kBufferAlignment, std::max(bytes, kBufferAlignment)));
  if (data == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", rows, " rows of ", wanted, " bytes"));
  }
  std::memset(data, 0, bytes);
  return std::make_shared<HostBuffer>(data, wanted);
}

TicketPtr GgmlBackend::Embed(absl::Span<const TokenId> ids, Buffer& residual) {
  return Done(RunEmbed(ids, residual));
}

absl::Status GgmlBackend::RunEmbed(absl::Span<const TokenId> ids, Buffer& residual) {
  RETURN_IF_ERROR(loaded_.CheckEmbed(ids));
  if (ids.empty()) return absl::OkStatus();
  TANDEM_CHECK(residual.bytes() >= ids.size() * loaded_.shape.hidden * sizeof(float));
  const uint32_t rows = static_cast<uint32_t>(ids.size());
  ASSIGN_OR_RETURN(GraphSet * set, graphs_.Get({GraphKind::kEmbed, rows},
                                               [&] { return BuildEmbedGraphs(parts(), rows); }));
  int32_t* tokens = static_cast<int32_t*>(set->tokens->data);
  for (uint32_t i = 0; i < rows; ++i) tokens[i] = static_cast<int32_t>(ids[i]);
  RETURN_IF_ERROR(device_->Compute(set->graphs[0]));
  std::memcpy(residual.host(), set->outputs[0]->data, ggml_nbytes(set->outputs[0]));
  return absl::OkStatus();
}

TicketPtr GgmlBackend::AttentionLayer(uint32_t layer, absl::Span<const step::KvRow> rows,
                                      Buffer& residual, const Buffer* ffn_out) {
  return Done(RunAttention(layer, rows, residual, ffn_out));
}

absl::Status GgmlBackend::RunAttention(uint32_t layer, absl::Span<const step::KvRow> rows,
                                       Buffer& residual, const Buffer* ffn_out) {
  RETURN_IF_ERROR(loaded_.CheckAttention(layer, rows.size()));
  if (rows.empty()) return absl::OkStatus();
  const uint32_t n = static_cast<uint32_t>(rows.size());
  const size_t values = size_t{n} * loaded_.shape.hidden;
  TANDEM_CHECK(residual.bytes() >= values * sizeof(float));
  TANDEM_CHECK(ffn_out == nullptr || ffn_out->bytes() >= values * sizeof(float));
  ASSIGN_OR_RETURN(GraphSet * set, graphs_.Get({GraphKind::kAttention, n},
                                               [&] { return BuildAttentionGraphs(parts(), n); }));
  queries_.resize(n);
  int32_t* positions = static_cast<int32_t*>(set->positions->data);
  int64_t* kv_rows = static_cast<int64_t*>(set->kv_rows->data);
  for (uint32_t i = 0; i < n; ++i) {
    const step::KvRow& row = rows[i];
    TANDEM_CHECK(row.blocks != nullptr);
    RETURN_IF_ERROR(loaded_.kv->CheckPosition(*row.blocks, row.position));
    positions[i] = static_cast<int32_t>(row.position);
    kv_rows[i] = loaded_.kv->RowOf(*row.blocks, row.position);
    queries_[i] = {row.blocks->data(), row.position};
  }
  paged_.queries = queries_.data();
  float* x = static_cast<float*>(set->x->data);
  if (ffn_out == nullptr) {
    std::memcpy(x, residual.host(), values * sizeof(float));
  } else {
    AddRows(values, ffn_out->host(), residual.host(), x);
  }
  RETURN_IF_ERROR(device_->Compute(set->graphs[layer]));
  std::memcpy(residual.host(), set->outputs[layer]->data, values * sizeof(float));
  return absl::OkStatus();
}

TicketPtr GgmlBackend::FfnLayer(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out) {
  return Done(RunFfn(layer, rows, in, out));
}

absl::Status GgmlBackend::RunFfn(uint32_t layer, uint32_t rows, const Buffer& in, Buffer& out) {
  RETURN_IF_ERROR(loaded_.CheckFfn(layer, rows));
  if (rows == 0) return absl::OkStatus();
  const size_t bytes = size_t{rows} * loaded_.shape.hidden * sizeof(float);
  TANDEM_CHECK(&in != &out && in.bytes() >= bytes && out.bytes() >= bytes);
  ASSIGN_OR_RETURN(GraphSet * set, graphs_.Get({GraphKind::kFfn, rows},
                                               [&] { return BuildFfnGraphs(parts(), rows); }));
  std::memcpy(set->x->data, in.host(), bytes);
  const uint32_t index = layer - loaded_.info.shard.first_layer;
  RETURN_IF_ERROR(device_->Compute(set->graphs[index]));
  std::memcpy(out.host(), set->outputs[index]->data, bytes);
  return absl::OkStatus();
}

TicketPtr GgmlBackend::HeadAndSample(absl::Span<const step::SampleRow> rows, Buffer& residual,
                                     const Buffer* ffn_out,
                                     std::vector<step::SampledToken>& tokens) {
  return Done(RunHead(rows, residual, ffn_out, tokens));
}

absl::Status GgmlBackend::RunHead(absl::Span<const step::SampleRow> rows, Buffer& residual,
                                  const Buffer* ffn_out, std::vector<step::SampledToken>& tokens) {
  tokens.clear();
  last_logits_ = {};
  RETURN_IF_ERROR(loaded_.CheckHead(rows.size()));
  if (rows.empty()) return absl::OkStatus();
  const uint32_t n = static_cast<uint32_t>(rows.size());
  const size_t values = size_t{n} * loaded_.shape.hidden;
  TANDEM_CHECK(residual.bytes() >= values * sizeof(float));
  TANDEM_CHECK(ffn_out == nullptr || ffn_out->bytes() >= values * sizeof(float));
  ASSIGN_OR_RETURN(GraphSet * set,
                   graphs_.Get({GraphKind::kHead, n}, [&] { return BuildHeadGraphs(parts(), n); }));
  if (ffn_out != nullptr) AddRows(values, ffn_out->host(), residual.host(), residual.host());
  std::memcpy(set->x->data, residual.host(), values * sizeof(float));
  RETURN_IF_ERROR(device_->Compute(set->graphs[0]));
  const size_t vocabulary = loaded_.info.dimensions.vocabulary;
  last_logits_ = {static_cast<const float*>(set->outputs[0]->data), n * vocabulary};
  tokens.reserve(n);
  for (uint32_t i = 0; i < n; ++i) {
    tokens.push_back(SampleToken(last_logits_.subspan(i * vocabulary, vocabulary), rows[i]));
  }
  return absl::OkStatus();
}

absl::Status GgmlBackend::ReadKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                                 uint32_t count, absl::Span<uint8_t> out) {
  RETURN_IF_ERROR(loaded_.CheckKv());
  return loaded_.kv->Read(layer, blocks, first, count, out);
}

absl::Status GgmlBackend::WriteKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                                  uint32_t count, absl::Span<const uint8_t> in) {
  RETURN_IF_ERROR(loaded_.CheckKv());
  return loaded_.kv->Write(layer, blocks, first, count, in);
}

absl::Status GgmlBackend::CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) {
  RETURN_IF_ERROR(loaded_.CheckKv());
  return loaded_.kv->Copy(copies);
}

}  // namespace tandem
