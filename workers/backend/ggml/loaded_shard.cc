#include "workers/backend/ggml/loaded_shard.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <set>
#include <string>
#include <utility>

#include "scheduler/base/status.h"

namespace tandem::ggml_cpu {
namespace {

bool NeedsKv(const std::set<Stage>& stages) {
  return stages.contains(Stage::kPrefill) || stages.contains(Stage::kAttention);
}

// What decides the bits besides model and build: of the CPU its instruction set and the number of
// threads, of any other device what it is, and that rows may depend on the batch, where they do.
std::string DeviceClass(const GgmlDevice& device, const ShardSpec& spec, bool invariant) {
  const std::string build =
      absl::StrCat("/ggml/", device.kind(), "/", ggml_version(), "+", ggml_commit(), "/");
  if (device.cpu()) return absl::StrCat(build, TANDEM_CPU_VARIANT, "/threads:", spec.threads, "/");
  return absl::StrCat(build, device.model(), "/", invariant ? "" : "batch-dependent/");
}

NumericsClass NumericsOf(const GgufModel& model, const ShardSpec& spec, const ShardWeights& weights,
                         const GgmlDevice& device) {
  const std::string prefix =
      absl::StrCat("gguf:", model.sha256().substr(0, 16),
                   DeviceClass(device, spec, weights.products_batch_invariant()));
  const std::string attention = prefix + (device.cpu() ? "paged/kv:f16" : "slots/kv:f16");
  NumericsClass numerics;
  if (spec.stages.contains(Stage::kPrefill)) numerics.prefill = attention;
  if (spec.stages.contains(Stage::kAttention)) numerics.attention = attention;
  if (spec.stages.contains(Stage::kFfn))
    numerics.ffn = prefix + GeometryOf(weights.shard().columns);
  return numerics;
}

BackendInfo InfoOf(const GgufModel& model, const ShardWeights& weights, const ShardSpec& spec,
                   const GgmlDevice& device) {
  const LlamaShape& shape = model.shape();
  BackendInfo info;
  info.name = absl::StrCat("ggml-", device.kind());
  info.model_name = model.name();
  info.dimensions = {shape.layers,   shape.hidden,       shape.kv_heads,
                     shape.head_dim, model.vocabulary(), shape.context_tokens};
  info.numerics = NumericsOf(model, spec, weights, device);
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

absl::Status CheckGroup(const LoadedShard& shard, TensorGroup group, const char* call) {
  if (shard.weights->Holds(group)) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(call, ": this worker did not load the tensors for it"));
}

absl::Status CheckRows(size_t rows) {
  if (rows <= kMaxRows) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(rows, " rows in one call; at most ", kMaxRows, " are possible"));
}

absl::Status CheckLayer(uint32_t layer, const LlamaShape& shape) {
  if (layer < shape.layers) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("layer ", layer, " of ", shape.layers));
}

}  // namespace

absl::Status CheckSpec(const ShardSpec& spec, bool whole) {
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

absl::StatusOr<OpenedModel> OpenModel(const ShardSpec& spec) {
  RETURN_IF_ERROR(CheckSpec(spec, spec.shard.IsWhole()));  // before the file is read
  OpenedModel opened;
  ASSIGN_OR_RETURN(opened.model, GgufModel::Open(spec.model_path));
  const auto shard = ResolveRequest(spec.shard, opened.model->shape().layers);
  if (!shard.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(spec.model_path, ": ", shard.status().message()));
  }
  opened.shard = *shard;
  return opened;
}

absl::StatusOr<LoadedShard> LoadedShard::Load(const ShardSpec& spec, const GgufModel& model,
                                              const FfnShard& shard, GgmlDevice& device) {
  RETURN_IF_ERROR(CheckSpec(spec, shard.IsWhole(model.shape().layers)));
  LoadedShard loaded;
  loaded.shape = model.shape();
  ASSIGN_OR_RETURN(loaded.weights, ShardWeights::Load(model, spec.stages, shard, device));
  if (NeedsKv(spec.stages)) {
    ASSIGN_OR_RETURN(loaded.kv,
                     KvPool::Create(model.shape(), spec.kv_blocks, spec.block_tokens, device));
  }
  loaded.info = InfoOf(model, *loaded.weights, spec, device);
  return loaded;
}

absl::Status LoadedShard::CheckEmbed(absl::Span<const TokenId> ids) const {
  RETURN_IF_ERROR(CheckGroup(*this, TensorGroup::kHead, "Embed"));
  RETURN_IF_ERROR(CheckRows(ids.size()));
  for (const TokenId id : ids) {
    if (id < info.dimensions.vocabulary) continue;
    return absl::InvalidArgumentError(absl::StrCat(
        "token id ", id, " is not below the vocabulary of ", info.dimensions.vocabulary));
  }
  return absl::OkStatus();
}

absl::Status LoadedShard::CheckAttention(uint32_t layer, size_t rows) const {
  RETURN_IF_ERROR(CheckGroup(*this, TensorGroup::kAttention, "AttentionLayer"));
  RETURN_IF_ERROR(CheckRows(rows));
  return CheckLayer(layer, shape);
}

absl::Status LoadedShard::CheckFfn(uint32_t layer, size_t rows) const {
  RETURN_IF_ERROR(CheckGroup(*this, TensorGroup::kFfn, "FfnLayer"));
  RETURN_IF_ERROR(CheckRows(rows));
  RETURN_IF_ERROR(CheckLayer(layer, shape));
  if (info.shard.HoldsLayer(layer)) return absl::OkStatus();
  return absl::NotFoundError(
      absl::StrCat("layer ", layer, ": this shard holds ", ToString(info.shard, shape.layers)));
}

absl::Status LoadedShard::CheckHead(size_t rows) const {
  RETURN_IF_ERROR(CheckGroup(*this, TensorGroup::kHead, "HeadAndSample"));
  return CheckRows(rows);
}

absl::Status LoadedShard::CheckKv() const {
  if (kv != nullptr) return absl::OkStatus();
  return absl::FailedPreconditionError("this worker has no KV");
}

}  // namespace tandem::ggml_cpu
