#include "workers/daemon/config.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <iostream>

#include "scheduler/base/status.h"
#include "scheduler/model/yaml_reader.h"
#include "services/runtime/yaml_file.h"

namespace tandem {
namespace {

constexpr int64_t kMaxKvTokens = int64_t{1} << 30;
constexpr double kMaxDrainSeconds = 86400;
constexpr double kMaxSeconds = std::max(kMaxDrainSeconds, kMaxTimeScale);
constexpr uint32_t kMaxEmulatedChunk = 65536;
constexpr uint32_t kDefaultBlockTokens = 16, kSlotTokens = 1024;
constexpr char kSynthetic[] = "synthetic", kModelNumerics[] = "model:";

// A flag and its key are one thing: both are named here, once.
template <typename Bind>
void BindAll(WorkerConfig& c, Bind&& bind) {
  bind("stages", c.stages,
       "stages that this device runs: prefill, attention, ffn (comma separated)");
  bind("worker-id", c.worker_id, "stable name of this worker; default POOL@LISTEN");
  bind("pool", c.pool, "name of its pool; default: the stages joined by +");
  bind("memory-class", c.memory_class, "hbm or sram");
  bind("model", c.model, "GGUF file");
  bind("model-name", c.model_name, "name that clients ask for; default: the file's name");
  bind("backend", c.backend, "ggml, or emulated: a device of the catalog, in scaled time");
  bind("device", c.device,
       "ggml: cpu (default), or another such as cuda:0; 'list' prints what there is. emulated: of "
       "the catalog, such as h100-x8 (share/tandem/catalog has them)");
  bind("model-shape", c.model_shape, "emulated: the model, such as llama-3-70b");
  bind("weights", c.weights, "emulated: bf16, fp8, int8, int4, nvfp4 or mxfp4");
  bind("catalog", c.catalog, "emulated: directory of further chips, devices and models");
  bind("time-scale", c.time_scale, "emulated: machine seconds for one of the device's");
  bind("perturbation", c.perturbation,
       "emulated: share by which each coefficient of the device is off, 0 to 0.9");
  bind("perturbation-seed", c.perturbation_seed, "emulated: which coefficients, by how much");
  bind("numerics", c.numerics,
       "emulated: synthetic (a hash chain), or model:FILE.gguf (its text; its layers are the first "
       "of the emulated model's, the rest pass rows through)");
  bind("payload", c.payload,
       "emulated: elided (16 bytes a row) or real (the model's width); default: elided, or real "
       "with numerics model:FILE.gguf");
  bind("listen", c.listen, "host:port of the gRPC server");
  bind("advertise", c.advertise, "host:port that peers dial; default: LISTEN");
  bind("router", c.routers, "host:port of a router; may be given several times");
  bind("metrics-listen", c.metrics_listen, "host:port of GET /metrics");
  bind("admin-listen", c.admin_listen, "host:port of GET /livez and /readyz");
  bind("kv-tokens", c.kv_tokens, "positions that the KV cache holds");
  bind("block-tokens", c.block_tokens,
       "positions of one KV block; 0: 16, or a slot of 1024 on a device of ggml's but the CPU");
  bind("max-batch", c.max_batch, "sequences in one decode step");
  bind("max-micro-batches", c.max_micro_batches,
       "micro-batches in flight with a remote FFN worker");
  bind("micro-batches", c.micro_batches,
       "into how many a step is cut; 0: what its calls' measured times make best");
  bind("chunk-tokens", c.chunk_tokens, "rows of one prefill chunk; under 64 in the exact class");
  bind("layers", c.layers,
       "layers whose FFN an ffn worker holds: all, FIRST:LAST (last exclusive) or I/N");
  bind("column", c.column, "piece of those layers' columns: I/N; 0/1 is all of them");
  bind("max-merge-wait-us", c.max_merge_wait_us,
       "microseconds that an FFN call waits for another attention worker's rows; 0: never");
  bind("threads", c.threads, "compute threads; not more than cores");
  bind("drain-timeout-seconds", c.drain_timeout_seconds,
       "from SIGTERM until what is left is ended");
  BindTlsFiles(c.tls, bind);
  bind("log-format", c.log_format, "text or json");
}

std::string KeyOf(std::string flag) {
  std::replace(flag.begin(), flag.end(), '-', '_');
  return flag == "router" ? "routers" : flag;
}

absl::Status ReadFile(const std::string& path, WorkerConfig& config) {
  ASSIGN_OR_RETURN(YAML::Node node, LoadYamlFile(path));
  YamlReader reader(node, path);
  BindAll(config, [&](const std::string& flag, auto& value, const char*) {
    using Value = std::decay_t<decltype(value)>;
    if constexpr (std::is_same_v<Value, uint32_t>) {
      reader.Get(KeyOf(flag), value, 0, kMaxKvTokens);
    } else if constexpr (std::is_same_v<Value, double>) {
      reader.Get(KeyOf(flag), value, 0.0, kMaxSeconds);
    } else {
      reader.Get(KeyOf(flag), value);
    }
  });
  return reader.Finish();
}

absl::Status CheckRange(const char* key, uint32_t value, uint32_t least, uint32_t most) {
  if (value >= least && value <= most) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(key, ": ", value, " is not in [", least, ", ", most, "]"));
}

absl::Status CheckWord(const char* key, const std::string& value,
                       std::initializer_list<const char*> words) {
  for (const char* word : words) {
    if (value == word) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(key, ": '", value, "' is none of ", absl::StrJoin(words, ", ")));
}

// A port of 0 is one that the system picks, which a listener may ask for.
absl::Status CheckAddress(const char* key, const std::string& value, int least_port) {
  const size_t colon = value.rfind(':');
  int port = -1;
  if (colon != std::string::npos && colon > 0 && absl::SimpleAtoi(value.substr(colon + 1), &port) &&
      port >= least_port && port <= 65535) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(key, ": '", value, "' is no host:port"));
}

// What only a real backend takes, and its defaults.
absl::Status CheckReal(WorkerConfig& config) {
  if (config.model.empty())
    return absl::InvalidArgumentError("model: name a GGUF file with --model");
  for (const auto& [key, value] :
       {std::pair("model_shape", config.model_shape),
        std::pair("numerics", config.numerics == kSynthetic ? "" : config.numerics)}) {
    if (!value.empty()) {
      return absl::InvalidArgumentError(
          absl::StrCat(key, ": '", value, "' is of the emulated backend, not of ggml"));
    }
  }
  if (config.device.empty()) config.device = "cpu";
  if (config.block_tokens == 0)
    config.block_tokens = config.device == "cpu" ? kDefaultBlockTokens : kSlotTokens;
  if (config.kv_tokens == 0) config.kv_tokens = kDefaultKvTokens;
  if (config.chunk_tokens == 0) config.chunk_tokens = 32;
  return absl::OkStatus();
}

absl::Status CheckNumerics(WorkerConfig& config) {
  const bool model = !config.NumericsFile().empty();
  if (!model && config.numerics != kSynthetic) {
    return absl::InvalidArgumentError(
        absl::StrCat("numerics: '", config.numerics, "' is neither synthetic nor model:FILE.gguf"));
  }
  if (config.payload.empty()) config.payload = model ? "real" : "elided";
  RETURN_IF_ERROR(CheckWord("payload", config.payload, {"elided", "real"}));
  if (!model || config.payload == "real") return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("payload: elided frames hold no numbers, and numerics ", config.numerics,
                   " computes with them: leave payload out, or say real"));
}

absl::Status CheckEmulated(WorkerConfig& config) {
  if (config.device.empty())
    return absl::InvalidArgumentError("device: name a device of the catalog, such as h100-x8");
  if (config.model_shape.empty())
    return absl::InvalidArgumentError("model_shape: name a model of the catalog");
  RETURN_IF_ERROR(CheckNumerics(config));
  if (!(config.time_scale > 0 && config.time_scale <= kMaxTimeScale)) {
    return absl::InvalidArgumentError(
        absl::StrCat("time_scale: ", config.time_scale, " is not in (0, ", kMaxTimeScale, "]"));
  }
  if (!(config.perturbation >= 0 && config.perturbation <= 0.9)) {
    return absl::InvalidArgumentError(
        absl::StrCat("perturbation: ", config.perturbation, " is not in [0, 0.9]"));
  }
  if (config.block_tokens == 0) config.block_tokens = kDefaultBlockTokens;
  if (config.chunk_tokens == 0) config.chunk_tokens = 512;
  return absl::OkStatus();
}

}  // namespace

std::set<Stage> WorkerConfig::StageSet() const {
  std::set<Stage> set;
  for (const std::string& name : stages) {
    set.insert(name == "prefill"     ? Stage::kPrefill
               : name == "attention" ? Stage::kAttention
                                     : Stage::kFfn);
  }
  return set;
}

MemoryClass WorkerConfig::Memory() const {
  return memory_class == "sram" ? MemoryClass::kSram : MemoryClass::kHbm;
}

std::string WorkerConfig::NumericsFile() const {
  if (!absl::StartsWith(numerics, kModelNumerics)) return "";
  return numerics.substr(sizeof(kModelNumerics) - 1);
}

std::string WorkerConfig::MetricsUrl(const std::string& address) const {
  return absl::StrCat("http://", address.substr(0, address.rfind(':')),
                      metrics_listen.substr(metrics_listen.rfind(':')), "/metrics");
}

ShardRequest WorkerConfig::Shard() const { return *ParseShardRequest(layers, column); }

absl::Status CheckWorkerConfig(WorkerConfig& config) {
  if (config.stages.empty())
    return absl::InvalidArgumentError("stages: at least one of prefill, attention, ffn is needed");
  for (const std::string& stage : config.stages) {
    RETURN_IF_ERROR(CheckWord("stages", stage, {"prefill", "attention", "ffn"}));
  }
  if (config.routers.empty())
    return absl::InvalidArgumentError("router: at least one address is needed");
  RETURN_IF_ERROR(CheckWord("memory_class", config.memory_class, {"hbm", "sram"}));
  RETURN_IF_ERROR(CheckWord("backend", config.backend, {"ggml", "emulated"}));
  RETURN_IF_ERROR(config.emulated() ? CheckEmulated(config) : CheckReal(config));
  RETURN_IF_ERROR(CheckWord("log_format", config.log_format, {"text", "json"}));
  RETURN_IF_ERROR(CheckRange("block_tokens", config.block_tokens, 1, 1024));
  if (config.kv_tokens != 0 || !config.emulated())
    RETURN_IF_ERROR(CheckRange("kv_tokens", config.kv_tokens, config.block_tokens, kMaxKvTokens));
  RETURN_IF_ERROR(CheckRange("max_batch", config.max_batch, 1, 4096));
  RETURN_IF_ERROR(CheckRange("max_micro_batches", config.max_micro_batches, 1, 16));
  RETURN_IF_ERROR(CheckRange("micro_batches", config.micro_batches, 0, config.max_micro_batches));
  RETURN_IF_ERROR(CheckRange("chunk_tokens", config.chunk_tokens, 1,
                             config.emulated() ? kMaxEmulatedChunk : 63));
  RETURN_IF_ERROR(CheckRange("max_merge_wait_us", config.max_merge_wait_us, 0, 1'000'000));
  RETURN_IF_ERROR(CheckRange("threads", config.threads, 1, 1024));
  ASSIGN_OR_RETURN(const ShardRequest shard, ParseShardRequest(config.layers, config.column));
  if (!shard.IsWhole() && config.StageSet() != std::set<Stage>{Stage::kFfn}) {
    return absl::InvalidArgumentError(
        absl::StrCat("layers: ", config.layers, ", column: ", config.column,
                     ": a part of the FFN is for the ffn stage alone, not for stages ",
                     absl::StrJoin(config.stages, ",")));
  }
  if (!(config.drain_timeout_seconds >= 0 && config.drain_timeout_seconds <= kMaxDrainSeconds)) {
    return absl::InvalidArgumentError(
        absl::StrCat("drain_timeout_seconds: ", config.drain_timeout_seconds, " is not in [0, ",
                     kMaxDrainSeconds, "]"));
  }
  RETURN_IF_ERROR(CheckTlsFiles(config.tls));
  RETURN_IF_ERROR(CheckAddress("listen", config.listen, 0));
  RETURN_IF_ERROR(CheckAddress("metrics_listen", config.metrics_listen, 0));
  RETURN_IF_ERROR(CheckAddress("admin_listen", config.admin_listen, 0));
  if (!config.advertise.empty()) RETURN_IF_ERROR(CheckAddress("advertise", config.advertise, 1));
  for (const std::string& router : config.routers)
    RETURN_IF_ERROR(CheckAddress("router", router, 1));
  if (config.model_name.empty())
    config.model_name = config.emulated() ? config.model_shape
                                          : std::filesystem::path(config.model).stem().string();
  if (config.pool.empty()) config.pool = absl::StrJoin(config.stages, "+");
  if (config.worker_id.empty()) config.worker_id = absl::StrCat(config.pool, "@", config.listen);
  return absl::OkStatus();
}

std::string ToYaml(const WorkerConfig& config) {
  YAML::Emitter out;
  out << YAML::BeginMap;
  WorkerConfig copy = config;
  BindAll(copy, [&](const std::string& flag, auto& value, const char*) {
    out << YAML::Key << KeyOf(flag) << YAML::Value << value;
  });
  out << YAML::EndMap;
  return absl::StrCat(out.c_str(), "\n");
}

absl::StatusOr<std::optional<WorkerCommand>> ParseWorkerCommand(int argc, const char* const* argv) {
  WorkerCommand command;
  std::string file;
  // The file first, so that flags override it: look for it before the flags are bound to the
  // values.
  for (int i = 1; i < argc; ++i) {
    const absl::string_view word = argv[i];
    if (word == "--config" && i + 1 < argc) file = argv[i + 1];
    if (word.substr(0, 9) == "--config=") file = std::string(word.substr(9));
  }
  if (!file.empty()) RETURN_IF_ERROR(ReadFile(file, command.config));

  CLI::App app{"tandem-worker: one device that runs prefill, attention or FFN stages of a model"};
  app.footer("tandem-worker microbench --help: times the device's calls, for tandemctl calibrate");
  app.set_version_flag("--version", std::string("tandem-worker ") + TANDEM_VERSION);
  app.add_option("--config", file, "YAML file with these options as keys (- becomes _)");
  app.add_flag("--print-config", command.print_config, "print the configuration as YAML and exit");
  BindAll(command.config, [&](const std::string& flag, auto& value, const char* help) {
    using Value = std::decay_t<decltype(value)>;
    auto* option = app.add_option("--" + flag, value, help)->capture_default_str();
    if constexpr (std::is_same_v<Value, std::vector<std::string>>) option->delimiter(',');
  });
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    app.exit(done);
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  if (command.config.lists_devices()) return command;
  if (!command.print_config || !command.config.stages.empty())
    RETURN_IF_ERROR(CheckWorkerConfig(command.config));
  return command;
}

}  // namespace tandem
