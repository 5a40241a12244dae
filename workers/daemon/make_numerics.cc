#include "workers/daemon/make_numerics.h"

#include <absl/strings/str_cat.h>

#include <string>
#include <utility>

#include "scheduler/base/status.h"
#include "workers/backend/deepened/deepened_backend.h"
#include "workers/backend/ggml/ggml_backend.h"
#include "workers/backend/ggml/gguf_model.h"
#include "workers/backend/synthetic/synthetic_backend.h"

namespace tandem {
namespace {

constexpr uint32_t kElidedRowFloats = 4;  // 16 bytes: a digest of the row
constexpr uint32_t kElidedKvRowBytes = 16;

using NumericsOr = absl::StatusOr<std::unique_ptr<StageBackend>>;

// The vocabulary of the tokenizer's file, so that every token has a text; the shape's without one.
absl::StatusOr<uint32_t> Vocabulary(const WorkerConfig& config, const model::ModelShape& shape) {
  if (config.model.empty()) return static_cast<uint32_t>(shape.vocabulary);
  ASSIGN_OR_RETURN(const auto file, ggml_cpu::GgufModel::Open(config.model));
  return file->vocabulary();
}

NumericsOr MakeSynthetic(const WorkerConfig& config, const cost::CostTable& table,
                         const FfnShard& shard, uint32_t kv_blocks) {
  const model::ModelShape& shape = table.shape();
  const bool real = config.payload == "real";
  SyntheticOptions options;
  options.stages = config.StageSet();
  options.dimensions.layers = static_cast<uint32_t>(shape.layers);
  options.dimensions.hidden = real ? static_cast<uint32_t>(shape.hidden) : kElidedRowFloats;
  options.dimensions.kv_heads = static_cast<uint32_t>(shape.kv_heads);
  options.dimensions.head_dim = static_cast<uint32_t>(shape.head_dim);
  ASSIGN_OR_RETURN(options.dimensions.vocabulary, Vocabulary(config, shape));
  options.dimensions.context_tokens = static_cast<uint32_t>(shape.context_tokens);
  options.kv_blocks = kv_blocks;
  options.block_tokens = config.block_tokens;
  options.shard = shard;
  options.kv_row_bytes =
      real ? static_cast<uint32_t>(cost::KvRowBytes(shape, table.precision())) : kElidedKvRowBytes;
  return std::make_unique<SyntheticBackend>(std::move(options));
}

// The text is the tokenizer's: its ids must be the model's.
absl::Status CheckTokenizer(const WorkerConfig& config, uint32_t vocabulary) {
  if (config.model.empty() || config.model == config.NumericsFile()) return absl::OkStatus();
  ASSIGN_OR_RETURN(const auto tokenizer, ggml_cpu::GgufModel::Open(config.model));
  if (tokenizer->vocabulary() == vocabulary) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("numerics: ", config.NumericsFile(), " has a vocabulary of ", vocabulary,
                   ", the tokenizer of model ", config.model, " one of ", tokenizer->vocabulary()));
}

NumericsOr MakeModel(const WorkerConfig& config, const cost::CostTable& table,
                     const FfnShard& shard, uint32_t kv_blocks) {
  ASSIGN_OR_RETURN(const auto file, ggml_cpu::GgufModel::Open(config.NumericsFile()));
  const auto layers = static_cast<uint32_t>(table.shape().layers);
  const uint32_t real_layers = file->shape().layers;
  if (layers < real_layers) {
    return absl::InvalidArgumentError(absl::StrCat(
        "numerics: ", file->path(), " has ", real_layers, " layers and model_shape ",
        table.shape().name, " ", layers, ": a real model needs at least as many emulated layers"));
  }
  RETURN_IF_ERROR(CheckTokenizer(config, file->vocabulary()));
  ShardSpec spec;
  spec.model_path = file->path();
  spec.stages = config.StageSet();
  spec.kv_blocks = kv_blocks;
  spec.block_tokens = config.block_tokens;
  spec.threads = config.threads;
  ASSIGN_OR_RETURN(std::unique_ptr<StageBackend> real,
                   GgmlBackend::Create(spec, *file, RealPart(shard, real_layers)));
  return DeepenedBackend::Create(std::move(real), layers, shard);
}

}  // namespace

NumericsOr MakeNumerics(const WorkerConfig& config, const cost::CostTable& table,
                        const FfnShard& shard, uint32_t kv_blocks) {
  return config.NumericsFile().empty() ? MakeSynthetic(config, table, shard, kv_blocks)
                                       : MakeModel(config, table, shard, kv_blocks);
}

}  // namespace tandem
