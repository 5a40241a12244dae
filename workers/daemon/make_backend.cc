#include "workers/daemon/make_backend.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/base/status.h"
#include "scheduler/cost/cost_table.h"
#include "services/runtime/catalog_files.h"
#include "services/runtime/log.h"
#include "workers/backend/emulated/emulated_backend.h"
#include "workers/backend/ggml/ggml_backend.h"
#include "workers/backend/ggml/gguf_model.h"
#include "workers/backend/synthetic/synthetic_backend.h"

namespace tandem {
namespace {

// Positions of an emulated KV cache that nobody gave a size: more than a batch of long contexts.
constexpr uint64_t kMostKvTokens = 1 << 20;
constexpr uint32_t kElidedRowFloats = 4;  // 16 bytes: a digest of the row
constexpr uint32_t kElidedKvRowBytes = 16;

bool KeepsKv(const WorkerConfig& config) {
  const std::set<Stage> stages = config.StageSet();
  return stages.contains(Stage::kPrefill) || stages.contains(Stage::kAttention);
}

absl::StatusOr<BuiltBackend> MakeGgml(const WorkerConfig& config) {
  ShardSpec spec;
  spec.model_path = config.model;
  spec.stages = config.StageSet();
  spec.kv_blocks = KeepsKv(config) ? config.kv_tokens / config.block_tokens : 0;
  spec.block_tokens = config.block_tokens;
  spec.threads = config.threads;
  spec.shard = config.Shard();
  ASSIGN_OR_RETURN(std::unique_ptr<StageBackend> backend, MakeGgmlBackend(spec));
  return BuiltBackend{std::move(backend), spec.kv_blocks};
}

absl::StatusOr<cost::CostTable> MakeTable(const WorkerConfig& config) {
  std::vector<std::string> directories = config.catalog;
  directories.push_back(InstalledCatalog());
  ASSIGN_OR_RETURN(const model::Catalog catalog, LoadCatalog(directories));
  ASSIGN_OR_RETURN(const model::Device device, catalog.FindDevice(config.device));
  ASSIGN_OR_RETURN(const model::ModelShape shape, catalog.FindModel(config.model_shape));
  cost::CostOptions options;
  ASSIGN_OR_RETURN(options.precision.weights, model::ParseDtype(config.weights));
  options.perturbation = config.perturbation;
  // Each worker is off in its own way.
  options.seed = Random(config.perturbation_seed).Child(config.worker_id).Next();
  return cost::CostTable::Create(device, shape, options);
}

// How many positions the KV cache holds: as asked, or what fits beside the weights.
uint32_t KvTokens(const WorkerConfig& config, const cost::CostTable& table,
                  const cost::Holding& holding) {
  if (!KeepsKv(config)) return 0;
  if (config.kv_tokens != 0) return config.kv_tokens;
  const uint64_t fit =
      cost::KvTokensThatFit(table.device(), table.shape(), table.precision(), holding);
  return static_cast<uint32_t>(
      std::min(std::max<uint64_t>(fit, config.block_tokens), kMostKvTokens));
}

// The vocabulary of the tokenizer's file, so that every token has a text; the shape's without one.
absl::StatusOr<uint32_t> Vocabulary(const WorkerConfig& config, const model::ModelShape& shape) {
  if (config.model.empty()) return static_cast<uint32_t>(shape.vocabulary);
  ASSIGN_OR_RETURN(const auto file, ggml_cpu::GgufModel::Open(config.model));
  return file->vocabulary();
}

absl::StatusOr<BuiltBackend> MakeEmulated(const WorkerConfig& config, const RealTimeSource& time) {
  ASSIGN_OR_RETURN(const cost::CostTable table, MakeTable(config));
  const model::ModelShape& shape = table.shape();
  const std::set<Stage> stages = config.StageSet();
  cost::Holding holding{stages.contains(Stage::kPrefill), stages.contains(Stage::kAttention),
                        std::nullopt};
  ASSIGN_OR_RETURN(const FfnShard shard,
                   ResolveRequest(config.Shard(), static_cast<uint32_t>(shape.layers)));
  if (stages.contains(Stage::kFfn)) holding.ffn = shard;
  const uint32_t kv_tokens = KvTokens(config, table, holding);
  const bool real = config.payload == "real";

  SyntheticOptions synthetic;
  synthetic.stages = stages;
  synthetic.dimensions.layers = static_cast<uint32_t>(shape.layers);
  synthetic.dimensions.hidden = real ? static_cast<uint32_t>(shape.hidden) : kElidedRowFloats;
  synthetic.dimensions.kv_heads = static_cast<uint32_t>(shape.kv_heads);
  synthetic.dimensions.head_dim = static_cast<uint32_t>(shape.head_dim);
  ASSIGN_OR_RETURN(synthetic.dimensions.vocabulary, Vocabulary(config, shape));
  synthetic.dimensions.context_tokens = static_cast<uint32_t>(shape.context_tokens);
  synthetic.kv_blocks = kv_tokens / config.block_tokens;
  synthetic.block_tokens = config.block_tokens;
  synthetic.shard = shard;
  if (real) {
    synthetic.kv_row_bytes = static_cast<uint32_t>(cost::KvRowBytes(shape, table.precision()));
  } else {
    synthetic.kv_row_bytes = kElidedKvRowBytes;
  }
  EmulatedOptions options;
  options.stages = stages;
  options.shard = shard;
  options.kv_tokens = kv_tokens;
  options.time_scale = config.time_scale;
  const uint32_t kv_blocks = synthetic.kv_blocks;
  ASSIGN_OR_RETURN(std::unique_ptr<StageBackend> backend,
                   EmulatedBackend::Create(options, table,
                                           std::make_unique<SyntheticBackend>(std::move(synthetic)),
                                           time, [&time](Instant when) { time.WaitUntil(when); }));
  LogInfo("emulated", {{"device", config.device},
                       {"model_shape", config.model_shape},
                       {"weights", config.weights},
                       {"time_scale", config.time_scale},
                       {"perturbation", config.perturbation}});
  return BuiltBackend{std::move(backend), kv_blocks};
}

}  // namespace

absl::StatusOr<BuiltBackend> MakeBackend(const WorkerConfig& config, const RealTimeSource& time) {
  return config.emulated() ? MakeEmulated(config, time) : MakeGgml(config);
}

}  // namespace tandem
