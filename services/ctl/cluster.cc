#include "services/ctl/cluster.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_split.h>
#include <yaml-cpp/yaml.h>
#include <boost/json.hpp>

#include <algorithm>
#include <exception>
#include <optional>
#include <set>

#include "scheduler/base/status.h"
#include "scheduler/model/yaml_reader.h"
#include "services/runtime/yaml_file.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;

// What tandemctl decides for every daemon, so that a file cannot contradict it.
const std::set<std::string>& OwnFlags() {
  static const auto* const flags = new std::set<std::string>{
      "listen",     "advertise", "router",   "metrics-listen", "admin-listen", "model",
      "model-name", "stages",    "pool",     "worker-id",      "memory-class", "config",
      "layers",     "column",    "tls-cert", "tls-key",        "tls-ca",       "tls-name"};
  return *flags;
}

std::string Where(const std::string& file, const YAML::Node& node) {
  const YAML::Mark mark = node.Mark();
  return mark.is_null() ? file : absl::StrCat(file, ":", mark.line + 1);
}

absl::Status ReadFlags(const YAML::Node& node, const std::string& file, Flags& flags) {
  if (!node.IsMap())
    return absl::InvalidArgumentError(absl::StrCat(Where(file, node), ": flags is no mapping"));
  for (const auto& entry : node) {
    const std::string name = entry.first.IsScalar() ? entry.first.Scalar() : "";
    if (name.empty() || name.front() == '-' || !entry.second.IsScalar()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Where(file, entry.first), ": flags: '", name,
                       "' is not a flag's name (without dashes) with one value"));
    }
    if (OwnFlags().contains(name)) {
      return absl::InvalidArgumentError(absl::StrCat(Where(file, entry.first), ": flags: '", name,
                                                     "' is set by tandemctl itself"));
    }
    flags[name] = entry.second.Scalar();
  }
  return absl::OkStatus();
}

// `shards` of a pool: a word, or what is written.
absl::Status ReadShards(const YAML::Node& node, const std::string& file, WorkerSet& set) {
  absl::Status status;
  if (node.IsScalar()) {
    const absl::StatusOr<std::vector<ShardText>> even = EvenShards(node.Scalar(), set.count);
    status = even.status();
    if (even.ok()) set.shards = *even;
  } else if (node.IsSequence()) {
    for (const YAML::Node& entry : node) {
      YamlReader reader(entry, file);
      ShardText shard;
      reader.Get("layers", shard.layers);
      reader.Get("column", shard.column);
      RETURN_IF_ERROR(reader.Finish());
      set.shards.push_back(std::move(shard));
    }
    status = CheckShards(set.shards, set.count);
  } else {
    status = absl::InvalidArgumentError("neither a word nor a list");
  }
  if (status.ok() && set.pool != "ffn" && !set.shards.empty())
    status = absl::InvalidArgumentError("only workers of pool ffn hold a part of the FFN");
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat(Where(file, node), ": workers: pool '", set.pool,
                                                 "': shards: ", status.message()));
}

// Reads one entry of `workers` and takes stages and memory class from the topology.
absl::Status ReadWorkers(const YAML::Node& node, const std::string& file,
                         const TopologyPreset& topology,
                         std::vector<std::optional<WorkerSet>>& sets) {
  YamlReader reader(node, file);
  WorkerSet set;
  reader.Get("pool", set.pool);
  reader.Get("count", set.count, set.pool == "ffn" ? 0 : 1, kMaxWorkersPerPool);
  reader.GetMapping("flags",
                    [&](const YAML::Node& flags) { return ReadFlags(flags, file, set.flags); });
  reader.GetAny("shards",  // with the count known
                [&](const YAML::Node& shards) { return ReadShards(shards, file, set); });
  RETURN_IF_ERROR(reader.Finish());
  std::vector<absl::string_view> names;
  for (size_t i = 0; i < topology.pools.size(); ++i) {
    const PoolPreset& pool = topology.pools[i];
    names.push_back(pool.pool);
    if (pool.pool != set.pool) continue;
    if (sets[i].has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat(Where(file, node), ": workers: pool '", set.pool, "' stands twice"));
    }
    set.stages = std::string(pool.stages);
    set.memory_class = std::string(pool.memory_class);
    sets[i] = std::move(set);
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(Where(file, node), ": workers: pool '", set.pool,
                                                 "' is none of topology ", topology.name,
                                                 "'s: ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<ClusterConfig> ReadCluster(const YAML::Node& node, const std::string& file) {
  ClusterConfig config;
  YamlReader reader(node, file);
  reader.Get("topology", config.topology);
  reader.Get("model", config.model);
  reader.Get("model_name", config.model_name);
  reader.GetMapping("gateway", [&](const YAML::Node& gateway) {
    YamlReader part(gateway, file);
    part.Get("port", config.gateway_port, 1, 65535);
    part.GetMapping("flags", [&](const YAML::Node& flags) {
      return ReadFlags(flags, file, config.gateway_flags);
    });
    return part.Finish();
  });
  reader.GetMapping("tls", [&](const YAML::Node& tls) {
    YamlReader part(tls, file);
    part.Get("cert", config.tls.certificate);
    part.Get("key", config.tls.key);
    part.Get("ca", config.tls.authority);
    part.Get("name", config.tls.name);
    RETURN_IF_ERROR(part.Finish());
    const absl::Status status = CheckTlsFiles(config.tls);
    if (status.ok()) return status;
    return absl::InvalidArgumentError(absl::StrCat(Where(file, tls), ": tls: ", status.message()));
  });
  reader.GetMapping("emulated", [&](const YAML::Node& emulated) {
    YamlReader part(emulated, file);
    part.Require("model_shape", config.emulation.model_shape);
    part.Get("devices", config.emulation.devices);
    part.Get("weights", config.emulation.weights);
    part.Get("time_scale", config.emulation.time_scale);
    part.Get("perturbation", config.emulation.perturbation);
    part.Get("numerics", config.emulation.numerics);
    part.Get("payload", config.emulation.payload);
    return part.Finish();
  });
  reader.GetMapping("router", [&](const YAML::Node& router) {
    YamlReader part(router, file);
    part.GetMapping("flags", [&](const YAML::Node& flags) {
      return ReadFlags(flags, file, config.router_flags);
    });
    return part.Finish();
  });
  if (config.topology.empty()) {
    // An unknown key may be the misspelt one: say that first.
    reader.GetList("workers", [](const YAML::Node&) { return absl::OkStatus(); });
    RETURN_IF_ERROR(reader.Finish());
    return absl::InvalidArgumentError(absl::StrCat(file, ": topology is missing"));
  }
  const absl::StatusOr<const TopologyPreset*> topology = FindTopology(config.topology);
  if (!topology.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(Where(file, node), ": topology: ", topology.status().message()));
  }
  std::vector<std::optional<WorkerSet>> sets((*topology)->pools.size());
  reader.GetList("workers", [&](const YAML::Node& entry) {
    return ReadWorkers(entry, file, **topology, sets);
  });
  RETURN_IF_ERROR(reader.Finish());
  for (size_t i = 0; i < sets.size(); ++i) {
    if (!sets[i].has_value()) {
      return absl::InvalidArgumentError(absl::StrCat(file, ": workers: topology ", config.topology,
                                                     " needs pool '", (*topology)->pools[i].pool,
                                                     "'"));
    }
    config.workers.push_back(*std::move(sets[i]));
  }
  return config;
}

json::object FlagsJson(const Flags& flags) {
  json::object out;
  for (const auto& [name, value] : flags) out[name] = value;
  return out;
}

Flags FlagsFromJson(const json::value& value) {
  Flags flags;
  for (const auto& entry : value.as_object())
    flags[std::string(entry.key())] = json::value_to<std::string>(entry.value());
  return flags;
}

}  // namespace

ClusterConfig PresetCluster(const TopologyPreset& topology, const std::vector<int>& counts) {
  ClusterConfig config;
  config.topology = std::string(topology.name);
  for (size_t i = 0; i < topology.pools.size(); ++i) {
    const PoolPreset& pool = topology.pools[i];
    config.workers.push_back({.pool = std::string(pool.pool),
                              .stages = std::string(pool.stages),
                              .memory_class = std::string(pool.memory_class),
                              .count = counts[i],
                              .flags = {},
                              .shards = {}});
  }
  return config;
}

absl::Status CutFfnPool(ClusterConfig& config, absl::string_view kind) {
  for (WorkerSet& set : config.workers) {
    if (set.pool != "ffn") continue;
    ASSIGN_OR_RETURN(set.shards, EvenShards(kind, set.count));
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(EvenShards(kind, 1).status());
  if (kind == "replicas") return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("topology ", config.topology, " has no pool ffn to cut by ", kind));
}

absl::StatusOr<ClusterConfig> ReadClusterFile(const std::string& path) {
  ASSIGN_OR_RETURN(const YAML::Node node, LoadYamlFile(path));
  try {
    return ReadCluster(node, path);
  } catch (const YAML::Exception& error) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ":", error.mark.line + 1, ": ", error.msg));
  }
}

std::string ShapeOf(const ClusterConfig& config) {
  const absl::StatusOr<const TopologyPreset*> topology = FindTopology(config.topology);
  if (!topology.ok()) return "";
  std::vector<int> counts;
  for (const WorkerSet& set : config.workers) counts.push_back(set.count);
  return FormatShape(**topology, counts);
}

json::value ToJson(const ClusterConfig& config) {
  json::array workers;
  for (const WorkerSet& set : config.workers) {
    json::array shards;
    for (const ShardText& shard : set.shards)
      shards.push_back({{"layers", shard.layers}, {"column", shard.column}});
    workers.push_back({{"pool", set.pool},
                       {"stages", set.stages},
                       {"memory_class", set.memory_class},
                       {"count", set.count},
                       {"flags", FlagsJson(set.flags)},
                       {"shards", std::move(shards)}});
  }
  return {{"topology", config.topology},
          {"model", config.model},
          {"model_name", config.model_name},
          {"gateway_port", config.gateway_port},
          {"monitoring", config.monitoring},
          {"monitoring_port", config.monitoring_port},
          {"tls",
           {{"cert", config.tls.certificate},
            {"key", config.tls.key},
            {"ca", config.tls.authority},
            {"name", config.tls.name}}},
          {"emulation",
           {{"model_shape", config.emulation.model_shape},
            {"devices", config.emulation.devices},
            {"weights", config.emulation.weights},
            {"time_scale", config.emulation.time_scale},
            {"perturbation", config.emulation.perturbation},
            {"numerics", config.emulation.numerics},
            {"payload", config.emulation.payload}}},
          {"gateway_flags", FlagsJson(config.gateway_flags)},
          {"router_flags", FlagsJson(config.router_flags)},
          {"workers", std::move(workers)}};
}

absl::StatusOr<ClusterConfig> ClusterFromJson(const json::value& value) {
  try {
    ClusterConfig config;
    config.topology = json::value_to<std::string>(value.at("topology"));
    config.model = json::value_to<std::string>(value.at("model"));
    config.model_name = json::value_to<std::string>(value.at("model_name"));
    config.gateway_port = json::value_to<int>(value.at("gateway_port"));
    config.monitoring = json::value_to<bool>(value.at("monitoring"));
    config.monitoring_port = json::value_to<int>(value.at("monitoring_port"));
    const json::object& tls = value.at("tls").as_object();
    config.tls = {
        json::value_to<std::string>(tls.at("cert")), json::value_to<std::string>(tls.at("key")),
        json::value_to<std::string>(tls.at("ca")), json::value_to<std::string>(tls.at("name"))};
    const json::object& emulation = value.at("emulation").as_object();
    const auto text = [&](const char* key) {
      return json::value_to<std::string>(emulation.at(key));
    };
    config.emulation = {.model_shape = text("model_shape"),
                        .devices = text("devices"),
                        .weights = text("weights"),
                        .time_scale = text("time_scale"),
                        .perturbation = text("perturbation"),
                        .numerics = text("numerics"),
                        .payload = text("payload")};
    config.gateway_flags = FlagsFromJson(value.at("gateway_flags"));
    config.router_flags = FlagsFromJson(value.at("router_flags"));
    for (const json::value& entry : value.at("workers").as_array()) {
      config.workers.push_back(
          {.pool = json::value_to<std::string>(entry.at("pool")),
           .stages = json::value_to<std::string>(entry.at("stages")),
           .memory_class = json::value_to<std::string>(entry.at("memory_class")),
           .count = json::value_to<int>(entry.at("count")),
           .flags = FlagsFromJson(entry.at("flags")),
           .shards = {}});
      for (const json::value& shard : entry.at("shards").as_array()) {
        config.workers.back().shards.push_back({json::value_to<std::string>(shard.at("layers")),
                                                json::value_to<std::string>(shard.at("column"))});
      }
    }
    return config;
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("cluster: ", error.what()));
  }
}

}  // namespace tandem::ctl
