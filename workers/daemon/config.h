#pragma once

// tandem-worker's one configuration: defaults, then the YAML file of --config, then flags; checked
// once, at start.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "scheduler/view/worker.h"
#include "services/runtime/tls_files.h"

namespace tandem {

// Positions of a real model's KV cache that nobody gave a size: the host's memory, at 23 KB each
// for SmolLM2-135M.
inline constexpr uint32_t kDefaultKvTokens = 16384;

struct WorkerConfig {
  std::vector<std::string> stages;  // "prefill", "attention", "ffn"; at least one
  std::string worker_id;            // default: pool@listen
  std::string pool;                 // default: the stages joined by "+"
  std::string memory_class = "hbm";
  std::string model;  // GGUF file; required but for an emulated worker, which takes its vocabulary
  std::string model_name;  // default: the file's name without its ending, or the model shape's
  std::string backend = "ggml";  // or emulated
  // Where it computes. ggml: cpu (the default) or a device of ggml's, such as cuda:0; `list` prints
  // them and nothing else is done. emulated: of the catalog; required.
  std::string device;

  // backend: emulated
  std::string model_shape;           // of the catalog; required
  std::string weights = "bf16";      // number format of the weights
  std::vector<std::string> catalog;  // directories of chips, devices and models beside our own
  double time_scale = 1;             // machine seconds for one of the device's
  double perturbation = 0;           // share that each coefficient of the cost table is off by
  uint32_t perturbation_seed = 1;
  std::string numerics = "synthetic";  // a hash chain; or model:FILE.gguf, of a real model's text
  std::string payload;  // elided or real; default: what the numerics need. Real rows and KV are as
                        // wide as the model's: the shape's, or FILE.gguf's

  std::string listen = "127.0.0.1:9200";
  std::string
      advertise;  // host:port that peers dial; default: listen, with the port that was bound
  std::vector<std::string> routers = {"127.0.0.1:9000"};
  std::string metrics_listen = "127.0.0.1:9465";
  std::string admin_listen = "127.0.0.1:9301";

  uint32_t kv_tokens = 0;  // positions of the KV cache; 0: 16384, or what fits of an emulated
                           // device's memory (with a real model's numerics no more than 16384);
                           // unused on an FFN worker
  // Positions of one KV block; 0: 16, or on a device of ggml's other than the CPU a sequence's slot
  // of 1024 (backend/ggml/slot_graphs.h).
  uint32_t block_tokens = 0;
  uint32_t max_batch = 64;         // rows of one step
  uint32_t max_micro_batches = 3;  // in flight with a remote FFN
  uint32_t micro_batches = 0;      // of a step; 0: chosen by measurement
  uint32_t chunk_tokens = 0;       // rows of one prefill chunk; 0: 32, or 512 when emulated
  uint32_t threads = 1;            // compute threads; of the host, when emulated
  // The part of the FFN that an ffn worker holds; other stages need it whole.
  std::string layers = "all";  // "FIRST:LAST" (last exclusive), or "I/N": the I-th of N even parts
  std::string column = "0/1";  // "I/N": piece I of the layers' columns, cut into N; 0/1 is whole
  // How long a layer call may wait for rows of another attention worker, microseconds; 0: never.
  // With one attention worker nothing waits anyway. Worth about a layer's time where that is
  // weights being read; on a CPU a merged call costs what its parts do, so the default is 0
  // (policy/README.md).
  uint32_t max_merge_wait_us = 0;
  double drain_timeout_seconds = 60;  // from SIGTERM until what is left is ended

  TlsFiles tls;  // of all links

  std::string log_format = "text";  // or json

  bool emulated() const { return backend == "emulated"; }
  bool lists_devices() const { return !emulated() && device == "list"; }
  std::string NumericsFile() const;  // of model:FILE.gguf; empty: synthetic
  std::set<Stage> StageSet() const;
  MemoryClass Memory() const;
  ShardRequest Shard() const;  // of a checked configuration
  // Where its metrics are found by whoever finds it at `address` (host:port).
  std::string MetricsUrl(const std::string& address) const;
};

// What the command line asks for.
struct WorkerCommand {
  WorkerConfig config;
  bool print_config = false;  // with config.lists_devices(), nothing is checked
};

// nullopt: --help or --version was printed. kInvalidArgument names the flag or key and the value.
absl::StatusOr<std::optional<WorkerCommand>> ParseWorkerCommand(int argc, const char* const* argv);

// Checks values against each other and fills the defaults that depend on others.
absl::Status CheckWorkerConfig(WorkerConfig& config);

// The configuration as YAML that --config takes.
std::string ToYaml(const WorkerConfig& config);

}  // namespace tandem
