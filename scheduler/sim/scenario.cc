#include "scheduler/sim/scenario.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include "scheduler/base/status.h"
#include "scheduler/model/yaml_fields.h"

namespace tandem::sim {
namespace {

using model::YamlFields;

uint64_t Or(YamlFields& fields, const std::string& key, uint64_t fallback, uint64_t max = 1'000'000,
            uint64_t min = 0) {
  return fields.Integer(key, min, max, &fallback);
}

// A size that the code divides by, or that nothing works without.
uint64_t Size(YamlFields& fields, const std::string& key, uint64_t fallback) {
  return Or(fields, key, fallback, 1'000'000, 1);
}

Duration Microseconds(YamlFields& fields, const std::string& key, uint64_t fallback) {
  return Duration::Microseconds(static_cast<int64_t>(Or(fields, key, fallback, 1'000'000'000)));
}

Duration Milliseconds(YamlFields& fields, const std::string& key, uint64_t fallback) {
  return Duration::Milliseconds(static_cast<int64_t>(Or(fields, key, fallback, 1'000'000'000)));
}

absl::StatusOr<std::set<Stage>> ReadStages(absl::string_view text, absl::string_view where) {
  std::set<Stage> stages;
  for (const absl::string_view word : absl::StrSplit(text, '+')) {
    if (word == "prefill") {
      stages.insert(Stage::kPrefill);
    } else if (word == "attention") {
      stages.insert(Stage::kAttention);
    } else if (word == "ffn") {
      stages.insert(Stage::kFfn);
    } else {
      return absl::InvalidArgumentError(absl::StrCat(where, ": stages: '", word, "' is no stage"));
    }
  }
  return stages;
}

absl::Status ReadWorker(YamlFields& fields, absl::string_view where, const Catalog& catalog,
                        uint32_t layer_count, Scenario& scenario) {
  WorkerSpec worker;
  const std::string name = fields.Text("name");
  const uint64_t count = Or(fields, "count", 1, 1000);
  const std::string stages = fields.Text("stages");
  const std::string chip = fields.Text("chip");
  worker.kv_blocks = Size(fields, "kv_blocks", 512);
  worker.block_tokens = Size(fields, "block_tokens", 16);
  worker.max_sequences = Size(fields, "max_sequences", 64);
  worker.max_batch = Size(fields, "max_batch", 32);
  worker.max_micro_batches = Size(fields, "max_micro_batches", 2);
  worker.prefill_slots = Size(fields, "prefill_slots", 4);
  worker.chunk_tokens = Size(fields, "chunk_tokens", 32);
  worker.max_handoff_rows = Size(fields, "max_handoff_rows", 64);
  worker.max_merge_wait = Microseconds(fields, "max_merge_wait_us", 0);
  const std::string layers = fields.TextOr("layers", "all");
  const std::string column = fields.TextOr("column", "0/1");
  RETURN_IF_ERROR(fields.Finish());
  ASSIGN_OR_RETURN(worker.stages, ReadStages(stages, where));
  const auto found = catalog.chips.find(chip);
  if (found == catalog.chips.end())
    return absl::NotFoundError(absl::StrCat(where, ": chip '", chip, "' is not in the catalog"));
  worker.chip = found->second;
  ASSIGN_OR_RETURN(const ShardRequest request, ParseShardRequest(layers, column));
  ASSIGN_OR_RETURN(worker.shard, ResolveRequest(request, layer_count));
  for (uint64_t i = 1; i <= count; i++) {
    worker.name = count == 1 ? name : absl::StrCat(name, i);
    scenario.workers.push_back(worker);
  }
  return absl::OkStatus();
}

absl::Status ReadLoad(YamlFields& fields, LoadSpec& load) {
  load.requests = fields.Integer("requests", 1, 1'000'000);
  load.interarrival_mean = Microseconds(fields, "interarrival_us", 1000);
  load.prompt_min = Size(fields, "prompt_min", 1);
  load.prompt_max = Or(fields, "prompt_max", load.prompt_min, 1'000'000, load.prompt_min);
  load.output_min = Size(fields, "output_min", 1);
  load.output_max = Or(fields, "output_max", load.output_min, 1'000'000, load.output_min);
  load.choices_max = Or(fields, "choices_max", 1, 128, 1);
  load.stop_percent = Or(fields, "stop_percent", 0, 100);
  load.cancel_percent = Or(fields, "cancel_percent", 0, 100);
  return fields.Finish();
}

absl::Status ReadFault(YamlFields& fields, absl::string_view where, Scenario& scenario) {
  static const std::map<std::string, FaultKind> kKinds = {
      {"worker_down", FaultKind::kWorkerDown},   {"worker_slow", FaultKind::kWorkerSlow},
      {"worker_drain", FaultKind::kWorkerDrain}, {"router_down", FaultKind::kRouterDown},
      {"gateway_down", FaultKind::kGatewayDown}, {"break_tokens", FaultKind::kBreakTokens},
      {"break_any", FaultKind::kBreakAny},
  };
  FaultSpec fault;
  fault.at = Instant() + Microseconds(fields, "at_us", 0);
  const std::string kind = fields.Text("kind");
  fault.target = fields.TextOr("target", "");
  fault.lasts = Milliseconds(fields, "for_ms", 0);
  fault.factor_percent = Or(fields, "factor_percent", 100);
  RETURN_IF_ERROR(fields.Finish());
  const auto found = kKinds.find(kind);
  if (found == kKinds.end())
    return absl::InvalidArgumentError(absl::StrCat(where, ": kind: '", kind, "' is no fault"));
  fault.kind = found->second;
  scenario.faults.push_back(fault);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Scenario> ReadScenario(absl::string_view yaml, absl::string_view where,
                                      const Catalog& catalog) {
  YamlFields fields(yaml, where);
  Scenario scenario;
  scenario.name = fields.Text("name");
  const std::string shape = fields.Text("model");
  const uint64_t layers = fields.Integer("layers", 1, 1000);
  scenario.vocabulary = Or(fields, "vocabulary", 512, 1'000'000, 2);
  scenario.gateways = Or(fields, "gateways", 1, 100, 1);
  scenario.max_queued_requests = Or(fields, "max_queued_requests", 1024);
  scenario.control_link.latency = Microseconds(fields, "control_latency_us", 100);
  scenario.control_link.jitter = Microseconds(fields, "control_jitter_us", 50);
  scenario.time_limit = Milliseconds(fields, "time_limit_ms", 600'000);
  for (YamlFields& worker : fields.List("workers"))
    RETURN_IF_ERROR(ReadWorker(worker, where, catalog, static_cast<uint32_t>(layers), scenario));
  std::vector<YamlFields> loads = fields.List("load");
  for (YamlFields& load : loads) RETURN_IF_ERROR(ReadLoad(load, scenario.load));
  for (YamlFields& fault : fields.List("faults"))
    RETURN_IF_ERROR(ReadFault(fault, where, scenario));
  RETURN_IF_ERROR(fields.Finish());
  const auto found = catalog.models.find(shape);
  if (found == catalog.models.end())
    return absl::NotFoundError(absl::StrCat(where, ": model '", shape, "' is not in the catalog"));
  scenario.shape = found->second;
  scenario.shape.layers = layers;
  if (scenario.workers.empty() || loads.size() != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": ", scenario.workers.size(), " workers and ", loads.size(),
                     " loads; at least one and exactly one are needed"));
  }
  return scenario;
}

}  // namespace tandem::sim
