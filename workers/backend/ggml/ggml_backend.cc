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
using ggml_cpu::KvPool;
using ggml_cpu::ShardWeights;
using ggml_cpu::TensorGroup;

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

bool NeedsKv(const std::set<Stage>& stages) {
  return stages.contains(Stage::kPrefill) || stages.contains(Stage::kAttention);
}

NumericsClass NumericsOf(const GgufModel& model, const ShardSpec& spec, const FfnShard& shard) {
  const std::string prefix =
      absl::StrCat("gguf:", model.sha256().substr(0, 16), "/ggml/cpu/", ggml_version(), "+",
                   ggml_commit(), "/", TANDEM_CPU_VARIANT, "/threads:", spec.threads, "/");
  NumericsClass numerics;
  if (spec.stages.contains(Stage::kPrefill)) numerics.prefill = prefix + "paged/kv:f16";
  if (spec.stages.contains(Stage::kAttention)) numerics.attention = prefix + "paged/kv:f16";
  if (spec.stages.contains(Stage::kFfn)) numerics.ffn = prefix + GeometryOf(shard.columns);
  return numerics;
}

BackendInfo InfoOf(const GgufModel& model, const ShardWeights& weights, const ShardSpec& spec) {
  const ggml_cpu::LlamaShape& shape = model.shape();
  BackendInfo info;
  info.name = "ggml-cpu";
  info.model_name = model.name();
  info.dimensions = {shape.layers,   shape.hidden,       shape.kv_heads,
                     shape.head_dim, model.vocabulary(), shape.context_tokens};
  info.numerics = NumericsOf(model, spec, weights.shard());
  info.shard = weights.shard();
  info.attention_bytes = weights.bytes(TensorGroup::kAttention);
  info.ffn_bytes = weights.bytes(TensorGroup::kFfn);
  info.head_bytes = weights.bytes(TensorGroup::kHead);
  info.kv_row_bytes = 2 * shape.kv_dim() * ggml_type_size(GGML_TYPE_F16);
  info.heads = shape.heads;
  info.ffn = shape.ff;
  info.tied_embeddings = std::none_of(model.tensors().begin(), model.tensors().end(),
                                      [](const auto& t) { return t.name == "output.weight"; });
  info.end_tokens = model.end_tokens();
  return info;
}

}  // namespace

absl::Status GgmlBackend::CheckSpec(const ShardSpec& spec, bool whole) {
  if (spec.stages.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(spec.model_path, ": no stage to load"));
  }
  if (!whole && spec.stages != std::set<Stage>{Stage::kFfn}) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.model_path, ": a part of the FFN is for the ffn stage alone"));
  }
  if (NeedsKv(spec.stages) && (spec.kv_blocks == 0 || spec.block_tokens == 0)) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.model_path, ": prefill and attention need KV, not ", spec.kv_blocks,
                     " blocks of ", spec.block_tokens, " tokens"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<GgmlBackend>> GgmlBackend::Create(const ShardSpec& spec) {
  RETURN_IF_ERROR(CheckSpec(spec, spec.shard.IsWhole()));  // before the file is read
  ASSIGN_OR_RETURN(const std::unique_ptr<GgufModel> model, GgufModel::Open(spec.model_path));
  const absl::StatusOr<FfnShard> shard = ResolveRequest(spec.shard, model->shape().layers);
  if (!shard.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.model_path, ": ", shard.status().message()));
  }
  return Create(spec, *model, *shard);
}

absl::StatusOr<std::unique_ptr<GgmlBackend>> GgmlBackend::Create(const ShardSpec& spec,
                                                                 const GgufModel& model,
                                                                 const FfnShard& shard) {
  RETURN_IF_ERROR(CheckSpec(spec, shard.IsWhole(model.shape().layers)));
  ASSIGN_OR_RETURN(std::unique_ptr<GgmlDevice> device, GgmlDevice::Create(spec.threads));
  ASSIGN_OR_RETURN(std::unique_ptr<ShardWeights> weights,
                   ShardWeights::Load(model, spec.stages, shard, *device));
  std::unique_ptr<KvPool> kv;
  if (NeedsKv(spec.stages)) {
    ASSIGN_OR_RETURN(kv, KvPool::Create(model.shape(), spec.kv_blocks, spec.block_tokens, *device));
  }
  return std::unique_ptr<GgmlBackend>(
      new GgmlBackend(std::move(device), model, std::move(weights), std::move(kv), spec));
}

GgmlBackend::GgmlBackend(std::unique_ptr<GgmlDevice> device, const GgufModel& model,
                         std::unique_ptr<ShardWeights> weights, std::unique_ptr<KvPool> kv,
                         const ShardSpec& spec)
    : device_(std::move(device)),
      shape_(model.shape()),
      weights_(std::move(weights)),
      kv_(std::move(kv)),
      graphs_(*device_),
      info_(InfoOf(model, *weights_, spec)) {
  paged_ = {nullptr,         spec.block_tokens,
            shape_.heads,    shape_.kv_heads,
            shape_.head_dim, 1.0f / std::sqrt(static_cast<float>(shape_.head_dim))};
}

absl::Status GgmlBackend::CheckLoaded(TensorGroup group, const char* call) const {
  if (weights_->Holds(group)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(call, ": this worker did not load the tensors for it"));
}

absl::Status GgmlBackend::CheckRows(size_t rows) const {
  if (rows <= kMaxRows) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(rows, " rows in one call; at most ", kMaxRows, " are possible"));
}

absl::Status GgmlBackend::CheckKv() const {
  if (kv_ != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError("this worker has no KV");
}

absl::StatusOr<BufferRef> GgmlBackend::AllocateRows(uint32_t rows) {
  const size_t wanted = size_t{rows} * shape_.hidden * sizeof(float);
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
  RETURN_IF_ERROR(CheckLoaded(TensorGroup::kHead, "Embed"));
  RETURN_IF_ERROR(CheckRows(ids.size()));
  if (ids.empty()) return absl::OkStatus();
  TANDEM_CHECK(residual.bytes() >= ids.size() * shape_.hidden * sizeof(float));
  const uint32_t rows = static_cast<uint32_t>(ids.size());
  ASSIGN_OR_RETURN(GraphSet * set, graphs_.Get(GraphKind::kEmbed, rows,
                                               [&] { return BuildEmbedGraphs(parts(), rows); }));
  int32_t* tokens = static_cast<int32_t*>(set->tokens->data);
  for (uint32_t i = 0; i < rows; ++i) {
    if (ids[i] >= info_.dimensions.vocabulary) {
      return absl::InvalidArgumentError(absl::StrCat(
          "token id ", ids[i], " is not below the vocabulary of ", info_.dimensions.vocabulary));
    }
    tokens[i] = static_cast<int32_t>(ids[i]);
  }
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
  RETURN_IF_ERROR(CheckLoaded(TensorGroup::kAttention, "AttentionLayer"));
  RETURN_IF_ERROR(CheckRows(rows.size()));
  if (layer >= shape_.layers) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", layer, " of ", shape_.layers));
  }
  if (rows.empty()) return absl::OkStatus();
  const uint32_t n = static_cast<uint32_t>(rows.size());
  const size_t values = size_t{n} * shape_.hidden;
  TANDEM_CHECK(residual.bytes() >= values * sizeof(float));
  TANDEM_CHECK(ffn_out == nullptr || ffn_out->bytes() >= values * sizeof(float));
  ASSIGN_OR_RETURN(GraphSet * set, graphs_.Get(GraphKind::kAttention, n,
                                               [&] { return BuildAttentionGraphs(parts(), n); }));
  queries_.resize(n);
  int32_t* positions = static_cast<int32_t*>(set->positions->data);
  int64_t* kv_rows = static_cast<int64_t*>(set->kv_rows->data);
  for (uint32_t i = 0; i < n; ++i) {
    const step::KvRow& row = rows[i];
    TANDEM_CHECK(row.blocks != nullptr);
    RETURN_IF_ERROR(kv_->CheckPosition(*row.blocks, row.position));
    positions[i] = static_cast<int32_t>(row.position);
    kv_rows[i] = kv_->RowOf(*row.blocks, row.position);
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
  RETURN_IF_ERROR(CheckLoaded(TensorGroup::kFfn, "FfnLayer"));
  RETURN_IF_ERROR(CheckRows(rows));
  if (layer >= shape_.layers) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", layer, " of ", shape_.layers));
  }
  if (!info_.shard.HoldsLayer(layer)) {
    return absl::NotFoundError(
        absl::StrCat("layer ", layer, ": this shard holds ", ToString(info_.shard, shape_.layers)));
  }
  if (rows == 0) return absl::OkStatus();
  const size_t bytes = size_t{rows} * shape_.hidden * sizeof(float);
  TANDEM_CHECK(&in != &out && in.bytes() >= bytes && out.bytes() >= bytes);
  ASSIGN_OR_RETURN(GraphSet * set, graphs_.Get(GraphKind::kFfn, rows,
                                               [&] { return BuildFfnGraphs(parts(), rows); }));
  std::memcpy(set->x->data, in.host(), bytes);
  const uint32_t index = layer - info_.shard.first_layer;
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
  RETURN_IF_ERROR(CheckLoaded(TensorGroup::kHead, "HeadAndSample"));
  RETURN_IF_ERROR(CheckRows(rows.size()));
  if (rows.empty()) return absl::OkStatus();
  const uint32_t n = static_cast<uint32_t>(rows.size());
  const size_t values = size_t{n} * shape_.hidden;
  TANDEM_CHECK(residual.bytes() >= values * sizeof(float));
  TANDEM_CHECK(ffn_out == nullptr || ffn_out->bytes() >= values * sizeof(float));
  ASSIGN_OR_RETURN(GraphSet * set,
                   graphs_.Get(GraphKind::kHead, n, [&] { return BuildHeadGraphs(parts(), n); }));
  if (ffn_out != nullptr) AddRows(values, ffn_out->host(), residual.host(), residual.host());
  std::memcpy(set->x->data, residual.host(), values * sizeof(float));
  RETURN_IF_ERROR(device_->Compute(set->graphs[0]));
  const size_t vocabulary = info_.dimensions.vocabulary;
  last_logits_ = {static_cast<const float*>(set->outputs[0]->data), n * vocabulary};
  tokens.reserve(n);
  for (uint32_t i = 0; i < n; ++i) {
    tokens.push_back(SampleToken(last_logits_.subspan(i * vocabulary, vocabulary), rows[i]));
  }
  return absl::OkStatus();
}

absl::Status GgmlBackend::ReadKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                                 uint32_t count, absl::Span<uint8_t> out) {
  RETURN_IF_ERROR(CheckKv());
  return kv_->Read(layer, blocks, first, count, out);
}

absl::Status GgmlBackend::WriteKv(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                                  uint32_t count, absl::Span<const uint8_t> in) {
  RETURN_IF_ERROR(CheckKv());
  return kv_->Write(layer, blocks, first, count, in);
}

absl::Status GgmlBackend::CopyBlocks(absl::Span<const step::KvBook::BlockCopy> copies) {
  RETURN_IF_ERROR(CheckKv());
  return kv_->Copy(copies);
}

absl::StatusOr<std::unique_ptr<StageBackend>> MakeGgmlBackend(const ShardSpec& spec) {
  ASSIGN_OR_RETURN(std::unique_ptr<StageBackend> backend, GgmlBackend::Create(spec));
  return backend;
}

}  // namespace tandem
