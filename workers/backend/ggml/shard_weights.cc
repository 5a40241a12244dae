#include "workers/backend/ggml/shard_weights.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>

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

// Of a tensor named "blk.<layer>.<part>".
uint32_t LayerOf(absl::string_view name) {
  uint32_t layer = 0;
  const absl::string_view rest = name.substr(name.find('.') + 1);
  TANDEM_CHECK(absl::SimpleAtoi(rest.substr(0, rest.find('.')), &layer));
  return layer;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ShardWeights>> ShardWeights::Load(const GgufModel& model,
                                                                 const std::set<Stage>& stages,
                                                                 const FfnShard& shard,
                                                                 GgmlDevice& device) {
  auto weights = std::make_unique<ShardWeights>();
  weights->groups_ = GroupsOf(stages);
  weights->shard_ = shard;
  weights->context_.reset(
      ggml_init({ggml_tensor_overhead() * model.tensors().size(), nullptr, /*no_alloc=*/true}));
  uint64_t bytes = 0;
  for (const TensorSpec& spec : model.tensors()) {
    if (!weights->Holds(spec.group)) continue;
    if (spec.group == TensorGroup::kFfn && !shard.HoldsLayer(LayerOf(spec.name))) continue;
    RETURN_IF_ERROR(weights->AddTensor(model, spec));
    bytes += ggml_nbytes(weights->tensors_.at(spec.name));
  }
  if (weights->tensors_.empty()) return weights;  // of a shard without a layer
  RETURN_IF_ERROR(device.CheckFree(bytes, absl::StrCat(model.path(), ": weights")));
  weights->buffer_.reset(ggml_backend_alloc_ctx_tensors(weights->context_.get(), device.backend()));
  if (weights->buffer_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat(model.path(), ": no memory for ", bytes, " bytes of weights"));
  }
  ggml_backend_buffer_set_usage(weights->buffer_.get(), GGML_BACKEND_BUFFER_USAGE_WEIGHTS);
  AdviseHugePages(weights->buffer_.get());
  RETURN_IF_ERROR(weights->ReadTensors(model));
  RETURN_IF_ERROR(weights->CheckProducts(model, device));
  return weights;
}

absl::Status ShardWeights::CheckProducts(const GgufModel& model, GgmlDevice& device) {
  std::set<ggml_type> checked;
  for (const auto& [name, tensor] : tensors_) {
    if (tensor->ne[1] == 1 || !checked.insert(tensor->type).second) continue;
    ASSIGN_OR_RETURN(const bool invariant, ProductIsBatchInvariant(tensor, device));
    if (invariant) continue;
    products_batch_invariant_ = false;
    if (!device.cpu()) continue;
    return absl::UnimplementedError(
        absl::StrCat(model.path(), ": tensor '", name, "' of type ", ggml_type_name(tensor->type),
                     ": its product with a row depends on the batch around it, so tokens would; "
                     "q4_1 and q8_0 files are exact"));
  }
  return absl::OkStatus();
}

// A tensor of the file's type and shape, or of the shard's part of it.
absl::Status ShardWeights::AddTensor(const GgufModel& model, const TensorSpec& spec) {
  const ggml_tensor* whole = model.Header(spec.name);
  int64_t columns = whole->ne[0], rows = whole->ne[1];
  const bool cut = shard_.columns > 1 && spec.group == TensorGroup::kFfn && rows > 1;
  if (cut) {
    const bool down = absl::StrContains(spec.name, ".ffn_down.");
    const ggml_tensor* down_tensor =
        down ? whole : model.Header(absl::StrCat("blk.", LayerOf(spec.name), ".ffn_down.weight"));
    const auto block = static_cast<uint32_t>(ggml_blck_size(down_tensor->type));
    const auto range = CutColumns(shard_, static_cast<uint32_t>(down_tensor->ne[0]), block);
    if (!range.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(model.path(), ": tensor '", down_tensor->name,
                                                     "': ", range.status().message()));
    }
    Part part{0, static_cast<uint64_t>(rows), whole->nb[1], 0, whole->nb[1]};
    if (down) {
      columns = range->size();
      part.offset = ggml_row_size(whole->type, range->first);
      part.bytes = ggml_row_size(whole->type, columns);
    } else {
      rows = range->size();
      part.first_row = range->first;
      part.rows = range->size();
    }
    parts_[spec.name] = part;
  }
  ggml_tensor* tensor = cut ? ggml_new_tensor_2d(context_.get(), whole->type, columns, rows)
                            : ggml_dup_tensor(context_.get(), whole);
  ggml_set_name(tensor, spec.name.c_str());
  tensors_[spec.name] = tensor;
  bytes_[spec.group] += ggml_nbytes(tensor);
  return absl::OkStatus();
}

absl::Status ShardWeights::ReadTensors(const GgufModel& model) {
  std::vector<uint8_t> data, piece;
  for (const auto& [name, tensor] : tensors_) {
    data.resize(ggml_nbytes(model.Header(name)));
    RETURN_IF_ERROR(model.Read(name, absl::MakeSpan(data)));
    if (const auto part = parts_.find(name); part != parts_.end()) {
      piece.clear();
      for (uint64_t row = 0; row < part->second.rows; row++) {
        const auto from = data.begin() + static_cast<ptrdiff_t>((part->second.first_row + row) *
                                                                    part->second.row_bytes +
                                                                part->second.offset);
        piece.insert(piece.end(), from, from + static_cast<ptrdiff_t>(part->second.bytes));
      }
      TANDEM_CHECK(piece.size() == ggml_nbytes(tensor));
      ggml_backend_tensor_set(tensor, piece.data(), 0, piece.size());
    } else {
      ggml_backend_tensor_set(tensor, data.data(), 0, data.size());
    }
  }
  return absl::OkStatus();
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
