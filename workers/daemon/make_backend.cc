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
#include "workers/daemon/make_numerics.h"

namespace tandem {
namespace {

// Positions of an emulated KV cache that nobody gave a size: more than a batch of long contexts.
constexpr uint64_t kMostKvTokens = 1 << 20;

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
  spec.device = config.device;
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
  // The KV of a real model is real: the host's memory.
  const uint64_t most = config.NumericsFile().empty() ? kMostKvTokens : kDefaultKvTokens;
  return static_cast<uint32_t>(std::min(std::max<uint64_t>(fit, config.block_tokens), most));
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
  const uint32_t kv_blocks = kv_tokens / config.block_tokens;
  ASSIGN_OR_RETURN(std::unique_ptr<StageBackend> numerics,
                   MakeNumerics(config, table, shard, kv_blocks));

  EmulatedOptions options;
  options.stages = stages;
  options.shard = shard;
  options.kv_tokens = kv_tokens;
  options.time_scale = config.time_scale;
  ASSIGN_OR_RETURN(std::unique_ptr<StageBackend> backend,
                   EmulatedBackend::Create(options, table, std::move(numerics), time,
                                           [&time](Instant when) { time.WaitUntil(when); }));
  LogInfo("emulated", {{"device", config.device},
                       {"model_shape", config.model_shape},
                       {"weights", config.weights},
                       {"numerics", config.numerics},
                       {"time_scale", config.time_scale},
                       {"perturbation", config.perturbation}});
  return BuiltBackend{std::move(backend), kv_blocks, ledger::CatalogPrice(table.device())};
}

}  // namespace

absl::StatusOr<BuiltBackend> MakeBackend(const WorkerConfig& config, const RealTimeSource& time) {
  return config.emulated() ? MakeEmulated(config, time) : MakeGgml(config);
}

}  // namespace tandem
