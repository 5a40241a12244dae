#include "scheduler/sim/scenario.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <yaml-cpp/yaml.h>

#include <map>

#include "scheduler/base/status.h"
#include "scheduler/model/yaml_reader.h"

namespace tandem::sim {
namespace {

// The first and the last do not count.
constexpr uint32_t kLeastRequestsOfAClient = 3;

// A size that the code divides by, or that nothing works without.
void GetSize(YamlReader& fields, const std::string& key, uint32_t& value) {
  fields.Get(key, value, 1, 1'000'000);
}

void GetMicroseconds(YamlReader& fields, const std::string& key, Duration& value) {
  int64_t us = value.nanoseconds() / 1000;
  fields.Get(key, us, 0, 1'000'000'000);
  value = Duration::Microseconds(us);
}

void GetMilliseconds(YamlReader& fields, const std::string& key, Duration& value) {
  int64_t ms = value.nanoseconds() / 1'000'000;
  fields.Get(key, ms, 0, 1'000'000'000);
  value = Duration::Milliseconds(ms);
}

// The value, or the status with the file's name in front.
template <typename Value>
absl::StatusOr<Value> Named(absl::string_view where, absl::StatusOr<Value> value) {
  if (value.ok()) return value;
  return absl::Status(value.status().code(), absl::StrCat(where, ": ", value.status().message()));
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

absl::StatusOr<std::shared_ptr<const cost::CostTable>> TableOf(const std::string& name,
                                                               absl::string_view where,
                                                               const model::Catalog& catalog,
                                                               const cost::CostOptions& costs,
                                                               const Scenario& scenario) {
  ASSIGN_OR_RETURN(const model::Device device, Named(where, catalog.FindDevice(name)));
  ASSIGN_OR_RETURN(cost::CostTable table,
                   Named(where, cost::CostTable::Create(device, scenario.shape, costs)));
  return std::make_shared<const cost::CostTable>(std::move(table));
}

absl::Status ReadWorker(YamlReader fields, absl::string_view where, const model::Catalog& catalog,
                        const cost::CostOptions& costs, Scenario& scenario) {
  WorkerSpec worker;
  std::string name, stages, device_name, beside_name, layers = "all", column = "0/1";
  uint32_t count = 1;
  fields.Require("name", name);
  fields.Get("count", count, 1, 1000);
  fields.Require("stages", stages);
  fields.Require("device", device_name);
  fields.Get("beside", beside_name);
  GetSize(fields, "kv_blocks", worker.kv_blocks);
  GetSize(fields, "block_tokens", worker.block_tokens);
  GetSize(fields, "max_sequences", worker.max_sequences);
  GetSize(fields, "max_batch", worker.max_batch);
  GetSize(fields, "max_micro_batches", worker.max_micro_batches);
  fields.Get("micro_batches", worker.micro_batches, 0, 16);
  GetSize(fields, "prefill_slots", worker.prefill_slots);
  GetSize(fields, "chunk_tokens", worker.chunk_tokens);
  GetSize(fields, "max_handoff_rows", worker.max_handoff_rows);
  GetMicroseconds(fields, "max_merge_wait_us", worker.max_merge_wait);
  fields.Get("layers", layers);
  fields.Get("column", column);
  RETURN_IF_ERROR(fields.Finish());
  ASSIGN_OR_RETURN(const ShardRequest request, ParseShardRequest(layers, column));
  ASSIGN_OR_RETURN(worker.shard,
                   ResolveRequest(request, static_cast<uint32_t>(scenario.shape.layers)));
  ASSIGN_OR_RETURN(worker.stages, ReadStages(stages, where));
  ASSIGN_OR_RETURN(worker.costs, TableOf(device_name, where, catalog, costs, scenario));
  if (!beside_name.empty()) {
    ASSIGN_OR_RETURN(worker.beside, TableOf(beside_name, where, catalog, costs, scenario));
  }
  for (uint32_t i = 1; i <= count; i++) {
    worker.name = count == 1 ? name : absl::StrCat(name, i);
    scenario.workers.push_back(worker);
  }
  return absl::OkStatus();
}

absl::Status ReadLoad(YamlReader fields, LoadSpec& load) {
  fields.Require("requests", load.requests, 1, 1'000'000);
  load.interarrival_mean = Duration::Milliseconds(1);
  GetMicroseconds(fields, "interarrival_us", load.interarrival_mean);
  fields.Get("clients", load.clients, 0, 10'000);
  GetSize(fields, "prompt_min", load.prompt_min);
  load.prompt_max = load.prompt_min;
  fields.Get("prompt_max", load.prompt_max, load.prompt_min, 1'000'000);
  GetSize(fields, "output_min", load.output_min);
  load.output_max = load.output_min;
  fields.Get("output_max", load.output_max, load.output_min, 1'000'000);
  fields.Get("choices_max", load.choices_max, 1, 128);
  fields.Get("stop_percent", load.stop_percent, 0, 100);
  fields.Get("cancel_percent", load.cancel_percent, 0, 100);
  return fields.Finish();
}

absl::Status ReadFault(YamlReader fields, Scenario& scenario) {
  static const std::map<std::string, FaultKind> kKinds = {
      {"worker_down", FaultKind::kWorkerDown},   {"worker_slow", FaultKind::kWorkerSlow},
      {"worker_drain", FaultKind::kWorkerDrain}, {"router_down", FaultKind::kRouterDown},
      {"gateway_down", FaultKind::kGatewayDown}, {"break_tokens", FaultKind::kBreakTokens},
      {"break_any", FaultKind::kBreakAny},
  };
  FaultSpec fault;
  Duration at;
  GetMicroseconds(fields, "at_us", at);
  fault.at = Instant() + at;
  std::string kind;
  fields.Require("kind", kind);
  fields.Get("target", fault.target);
  GetMilliseconds(fields, "for_ms", fault.lasts);
  fields.Get("factor_percent", fault.factor_percent, 0, 1'000'000);
  const auto found = kKinds.find(kind);
  if (found == kKinds.end()) {
    fields.Refuse("kind", absl::StrCat("'", kind, "' is no fault"));
  } else {
    fault.kind = found->second;
  }
  RETURN_IF_ERROR(fields.Finish());
  scenario.faults.push_back(fault);
  return absl::OkStatus();
}

// What the scenario says of the model, which its workers' lists need.
absl::Status ReadModel(YamlReader& fields, absl::string_view where, const model::Catalog& catalog,
                       Scenario& scenario, cost::CostOptions& costs) {
  std::string name;
  std::string weights = "fp8";
  uint32_t layers = 0;
  fields.Require("model", name);
  fields.Require("layers", layers, 1, 1000);
  fields.Get("weights", weights);
  ASSIGN_OR_RETURN(costs.precision.weights, Named(where, model::ParseDtype(weights)));
  if (name.empty() || layers == 0) return fields.Finish();
  ASSIGN_OR_RETURN(scenario.shape, Named(where, catalog.FindModel(name)));
  scenario.shape.layers = layers;
  return absl::OkStatus();
}

void ReadRest(YamlReader& fields, Scenario& scenario) {
  fields.Get("vocabulary", scenario.vocabulary, 2, 1'000'000);
  fields.Get("gateways", scenario.gateways, 1, 100);
  fields.Get("host_cores", scenario.host_cores, 0, 1000);
  fields.Get("max_queued_requests", scenario.max_queued_requests, 0, 1'000'000);
  scenario.control_link.latency = Duration::Microseconds(100);
  GetMicroseconds(fields, "control_latency_us", scenario.control_link.latency);
  scenario.control_link.jitter = Duration::Microseconds(50);
  GetMicroseconds(fields, "control_jitter_us", scenario.control_link.jitter);
  scenario.time_limit = Duration::Seconds(600);
  GetMilliseconds(fields, "time_limit_ms", scenario.time_limit);
}

}  // namespace

uint32_t FirstOutput(uint32_t client, uint32_t clients, uint32_t output_tokens) {
  return 1 + static_cast<uint32_t>(uint64_t{client} * (output_tokens - 1) / clients);
}

absl::StatusOr<Scenario> ReadScenario(absl::string_view yaml, absl::string_view where,
                                      const model::Catalog& catalog) {
  const std::string file(where);
  ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(yaml, file));
  YamlReader fields(root, file);
  Scenario scenario;
  cost::CostOptions costs;
  size_t loads = 0;
  fields.Require("name", scenario.name);
  RETURN_IF_ERROR(ReadModel(fields, where, catalog, scenario, costs));
  ReadRest(fields, scenario);
  fields.GetList("workers", [&](const YAML::Node& node) {
    return ReadWorker(YamlReader(node, file), where, catalog, costs, scenario);
  });
  fields.GetList("load", [&](const YAML::Node& node) {
    loads++;
    return ReadLoad(YamlReader(node, file), scenario.load);
  });
  fields.GetList("faults", [&](const YAML::Node& node) {
    return ReadFault(YamlReader(node, file), scenario);
  });
  RETURN_IF_ERROR(fields.Finish());
  if (scenario.workers.empty() || loads != 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": ", scenario.workers.size(), " workers and ", loads,
                     " loads; at least one and exactly one are needed"));
  }
  const LoadSpec& load = scenario.load;
  if (load.clients > 0 && (scenario.gateways != 1 || load.requests % load.clients != 0 ||
                           load.requests / load.clients < kLeastRequestsOfAClient)) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": clients: ", load.requests, " requests at ", scenario.gateways,
                     " gateways are not the same ", kLeastRequestsOfAClient,
                     " or more for each of ", load.clients, " clients of one gateway"));
  }
  return scenario;
}

}  // namespace tandem::sim
