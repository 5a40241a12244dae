#include "workers/backend/ggml/shard_weights.h"

#include <absl/strings/str_cat.h>

#include <vector>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"
#include "workers/backend/ggml/invariance_check.h"

namespace tandem::ggml_cpu {
namespace {

std::set<TensorGroup> GroupsOf(const std::set<Stage>& stages) {
  using enum TensorGroup;
  std::set<TensorGroup> groups;
  if (stages.contains(Stage::kPrefill)) groups.insert({kAttention, kFfn, kHead});
  if (stages.contains(Stage::kAttention)) groups.insert({kAttention, kHead});
  if (stages.contains(Stage::kFfn)) groups.insert(kFfn);
  return groups;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShardWeights>> ShardWeights::Load(const GgufModel& model,
                                                                 const std::set<Stage>& stages,
                                                                 GgmlDevice& device) {
  auto weights = std::make_unique<ShardWeights>();
  weights->groups_ = GroupsOf(stages);
  weights->context_.reset(
      ggml_init({ggml_tensor_overhead() * model.tensors().size(), nullptr, /*no_alloc=*/true}));
  uint64_t bytes = 0;
  for (const TensorSpec& spec : model.tensors()) {
    if (!weights->Holds(spec.group)) continue;
    ggml_tensor* tensor = ggml_dup_tensor(weights->context_.get(), model.Header(spec.name));
    ggml_set_name(tensor, spec.name.c_str());
    weights->tensors_[spec.name] = tensor;
    weights->bytes_[spec.group] += ggml_nbytes(tensor);
    bytes += ggml_nbytes(tensor);
  }
  weights->buffer_.reset(ggml_backend_alloc_ctx_tensors(weights->context_.get(), device.backend()));
  if (weights->buffer_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(model.path(), ": no memory for ", bytes, " bytes of weights"));
  }
  ggml_backend_buffer_set_usage(weights->buffer_.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
  AdviseHugePages(weights->buffer_.get());
  std::vector<uint8_t> data;
  for (const auto& [name, tensor] : weights->tensors_) {
    data.resize(ggml_nbytes(tensor));
    RETURN_IF_ERROR(model.Read(name, absl::MakeSpan(data)));
    ggml_backend_tensor_set(tensor, data.data(), 0, data.size());
  }
  std::set<ggml_type> checked;
  for (const auto& [name, tensor] : weights->tensors_) {
    if (tensor->ne[1] == 1 || !checked.insert(tensor->type).second) continue;
    ASSIGN_OR_RETURN(const bool invariant, ProductIsBatchInvariant(tensor, device));
    if (invariant) continue;
    return absl::UnimplementedError(
        absl::StrCat(model.path(), ": tensor '", name, "' of type ", ggml_type_name(tensor->type),
                     ": its product with a row depends on the batch around it, so tokens would; "
                     "q4_1 and q8_0 files are exact"));
  }
  return weights;
}

uint64_t ShardWeights::bytes(TensorGroup group) const {
  auto it = bytes_.find(group);
  return it == bytes_.end() ? 0 : it->second;
}

ggml_tensor* ShardWeights::Layer(uint32_t layer, const char* part) const {
  return Global(absl::StrCat("blk.", layer, ".", part).c_str());
}

ggml_tensor* ShardWeights::Global(const char* name) const {
  auto it = tensors_.find(absl::StrCat(name, ".weight"));
  TANDEM_CHECK(it != tensors_.end());
  return it->second;
}

ggml_tensor* ShardWeights::OutputMatrix() const {
  return tensors_.contains("output.weight") ? Global("output") : Global("token_embd");
}

}  // namespace tandem::ggml_cpu
