#pragma once

// A whole local cluster as a value, and the YAML file that holds one (deploy/local/*.yaml):
//
//   topology: pd-afd               # required
//   model: /models/some.gguf       # optional: --model, TANDEM_MODEL or the default model
//   model_name: some               # optional: the model file's name without .gguf
//   gateway: {port: 8080, flags: {...}}          # optional
//   router: {flags: {...}}                       # optional
//   tls: {cert: tls.crt, key: tls.key, ca: ca.crt, name: tandem}   # optional: TLS on every link
//   workers:                       # required; every pool of the topology exactly once
//     - pool: ffn                  # required; stages and memory class are the topology's
//       count: 2                   # 1 by default; 0 of pool ffn: FFN servers of others register
//       flags: {threads: 1}        # further flags of the daemon, without their dashes
//       shards: layers             # pool ffn only: ffn_shards.h
//
// Reading is strict: an unknown key, a wrong type and a flag that tandemctl sets itself are errors
// that name file and key.

#include <absl/status/statusor.h>
#include <boost/json/value.hpp>

#include <map>
#include <string>
#include <vector>

#include "services/ctl/ffn_shards.h"
#include "services/ctl/topology.h"
#include "services/runtime/tls_files.h"

namespace tandem::ctl {

using Flags = std::map<std::string, std::string>;

struct WorkerSet {
  std::string pool, stages, memory_class;
  int count = 1;
  Flags flags;
  std::vector<ShardText>
      shards;  // worker i holds number i modulo their number; empty: all is whole
  bool operator==(const WorkerSet&) const = default;
};

// What `emulated` says; emulation.h makes flags of it. Empty model_shape: real workers.
struct Emulation {
  std::string model_shape, devices;
  std::string weights;  // empty: the device set's
  std::string time_scale = "auto";
  std::string perturbation = "0";
  std::string numerics = "synthetic";  // or model, model:FILE.gguf
  std::string payload;                 // empty: what the numerics need
  bool operator==(const Emulation&) const = default;
};

struct ClusterConfig {
  std::string topology;
  std::string model;  // path
  std::string model_name;
  int gateway_port = 0;     // 0: 8080, or the next free one
  bool monitoring = false;  // a Prometheus beside it; of the command line alone
  int monitoring_port = 0;  // 0: 9090, or the next free one
  TlsFiles tls;             // of every daemon
  Flags gateway_flags, router_flags;
  Emulation emulation;
  std::vector<WorkerSet> workers;  // in the order of the topology's pools
  bool operator==(const ClusterConfig&) const = default;
};

// The cluster of a topology with `counts` workers in its pools; model and names left empty.
ClusterConfig PresetCluster(const TopologyPreset& topology, const std::vector<int>& counts);

// Gives the workers of pool `ffn` even parts: what --ffn-shards says. kInvalidArgument: a kind that
// there is not, or a topology without that pool.
absl::Status CutFfnPool(ClusterConfig& config, absl::string_view kind);

// kNotFound: no such file; kInvalidArgument: names file, line where known, and key.
absl::StatusOr<ClusterConfig> ReadClusterFile(const std::string& path);

// "1P2A2F".
std::string ShapeOf(const ClusterConfig& config);

boost::json::value ToJson(const ClusterConfig& config);
absl::StatusOr<ClusterConfig> ClusterFromJson(const boost::json::value& json);

}  // namespace tandem::ctl
