#pragma once

// What a ggml backend holds of a model, whatever device it is on: tensors, KV, what it says of
// itself, and the checks that every call begins with.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/types/span.h>

#include <memory>

#include "workers/backend/ggml/ggml_device.h"
#include "workers/backend/ggml/gguf_model.h"
#include "workers/backend/ggml/kv_pool.h"
#include "workers/backend/ggml/llama_shape.h"
#include "workers/backend/ggml/shard_weights.h"
#include "workers/backend/stage_backend.h"

namespace tandem::ggml_cpu {

// Most rows of one call. Prefill chunks and batches are far smaller; it bounds the scratch buffer.
inline constexpr uint32_t kMaxRows = 512;

// A specification that no file can help: kInvalidArgument, naming the file and what is wrong.
// `whole`: of the FFN.
absl::Status CheckSpec(const ShardSpec& spec, bool whole);

// Opens the file and resolves the spec's shard.
struct OpenedModel {
  std::unique_ptr<GgufModel> model;
  FfnShard shard;
};
absl::StatusOr<OpenedModel> OpenModel(const ShardSpec& spec);

struct LoadedShard {
  LlamaShape shape;
  std::unique_ptr<ShardWeights> weights;
  std::unique_ptr<KvPool> kv;  // null without attention
  BackendInfo info;

  // Loads the stages' tensors and makes room for the KV. Errors: CheckSpec's, ShardWeights::Load's
  // and KvPool::Create's. `device` outlives the result.
  static absl::StatusOr<LoadedShard> Load(const ShardSpec& spec, const GgufModel& model,
                                          const FfnShard& shard, GgmlDevice& device);

  // kFailedPrecondition: a stage that was not loaded. kInvalidArgument: a layer that the model has
  // not, or too many rows. kNotFound: a layer of another shard.
  absl::Status CheckEmbed(absl::Span<const TokenId> ids) const;
  absl::Status CheckAttention(uint32_t layer, size_t rows) const;
  absl::Status CheckFfn(uint32_t layer, size_t rows) const;
  absl::Status CheckHead(size_t rows) const;
  absl::Status CheckKv() const;

  size_t RowFloats(size_t rows) const { return rows * shape.hidden; }
};

}  // namespace tandem::ggml_cpu
