#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <memory>
#include <utility>

#include "scheduler/base/status.h"
#include "services/ctl/commands.h"
#include "services/ctl/emulation.h"
#include "services/ctl/first_chat.h"
#include "services/ctl/local_status.h"
#include "services/ctl/monitoring.h"
#include "services/ctl/start_cluster.h"
#include "services/ctl/stop.h"
#include "services/ctl/stop_signals.h"
#include "services/runtime/file_watch.h"
#include "services/runtime/installed.h"
#include "services/runtime/real_time.h"

namespace tandem::ctl {
namespace {

struct Options {
  std::string topology = "pd-afd";
  std::string ffn_shards = "replicas";
  std::string shape, model, model_name, config_file, state_dir, bin_dir;
  int port = 0, monitoring_port = 0;
  int ready_seconds = 180;
  bool once = false, foreground = false, no_chat = false, monitoring = false;
  std::string backend = "ggml";
  Emulation emulation = NothingGiven();
  TlsFiles tls;
};

// The daemons' own files, by whole paths; looked at here, so that one that is no good is told at
// once and not from three dead daemons' logs.
absl::Status SecureCluster(ClusterConfig& config, const TlsFiles& given) {
  RETURN_IF_ERROR(CheckTlsFiles(given));
  if (given.given()) config.tls = given;
  if (!config.tls.given()) return absl::OkStatus();
  for (std::string* path : {&config.tls.certificate, &config.tls.key, &config.tls.authority})
    *path = std::filesystem::absolute(*path).lexically_normal().string();
  // Not by LinkSecurity: gRPC's threads would take the signals that are for this one.
  ASSIGN_OR_RETURN(const std::vector<std::string> texts, ReadTextFiles(config.tls.Paths()));
  return CheckTlsTexts(config.tls, texts).status();
}

// The cluster that the command line asks for; what it leaves open comes from the file, then from
// the defaults.
absl::StatusOr<ClusterConfig> RequestedCluster(const Options& options) {
  ClusterConfig config;
  if (!options.config_file.empty()) {
    ASSIGN_OR_RETURN(config, ReadClusterFile(options.config_file));
  } else {
    ASSIGN_OR_RETURN(const TopologyPreset* const topology, FindTopology(options.topology));
    ASSIGN_OR_RETURN(const std::vector<int> counts, ParseShape(*topology, options.shape));
    config = PresetCluster(*topology, counts);
    RETURN_IF_ERROR(CutFfnPool(config, options.ffn_shards));
  }
  Override(config.emulation, options.emulation);
  const bool emulated = options.backend == "emulated" || !config.emulation.model_shape.empty();
  if (!emulated && options.emulation != NothingGiven()) {
    return absl::InvalidArgumentError(
        "an option of emulated clusters was given: add --backend emulated, or name a model with "
        "--model-shape");
  }
  if (!options.model.empty()) config.model = options.model;
  // The tokenizer of the text that is computed.
  if (config.model.empty()) config.model = NumericsFile(config.emulation);
  if (config.model.empty()) config.model = DefaultModel();
  config.model = std::filesystem::absolute(config.model).lexically_normal().string();
  if (!options.model_name.empty()) config.model_name = options.model_name;
  RETURN_IF_ERROR(SecureCluster(config, options.tls));
  if (emulated) RETURN_IF_ERROR(EmulateCluster(config));
  if (config.model_name.empty())
    config.model_name = std::filesystem::path(config.model).stem().string();
  if (options.port != 0) config.gateway_port = options.port;
  config.monitoring = options.monitoring || options.monitoring_port != 0;
  config.monitoring_port = options.monitoring_port;
  return config;
}

// One cluster runs here already: fine when it is the one asked for.
absl::Status ReportRunning(const StateDir& dir, const ClusterConfig& wanted) {
  ASSIGN_OR_RETURN(const ClusterState state, dir.Load());
  std::printf("a cluster runs in %s already:\n%s\n", dir.path().c_str(),
              DescribeCluster(state, UnixNanoseconds() / 1'000'000'000).c_str());
  ClusterConfig same = wanted;
  const bool any_port =
      wanted.gateway_port == 0 || state.gateway == absl::StrCat("127.0.0.1:", wanted.gateway_port);
  if (any_port) same.gateway_port = state.config.gateway_port;
  // More than was asked for is fine too.
  if (!wanted.monitoring) same.monitoring = state.config.monitoring;
  if (wanted.monitoring_port == 0) same.monitoring_port = state.config.monitoring_port;
  // It found the time scale itself.
  if (wanted.emulation.time_scale == "auto" && same.workers.size() == state.config.workers.size()) {
    for (size_t i = 0; i < same.workers.size(); ++i) {
      const auto found = state.config.workers[i].flags.find("time-scale");
      if (found != state.config.workers[i].flags.end())
        same.workers[i].flags["time-scale"] = found->second;
    }
  }
  if (same == state.config) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat("it differs from the one asked for (", wanted.topology, " ", ShapeOf(wanted),
                   wanted.monitoring ? ", with monitoring" : "",
                   "); stop it first with `tandemctl local down`, or use another --state-dir"));
}

// Where the metrics are; empty without monitoring.
std::string WhereToLook(const ClusterState& state) {
  const std::string prometheus = PrometheusAddress(state);
  if (prometheus.empty()) return "";
  return absl::StrCat(
      "Prometheus: http://", prometheus, "/graph, alerts at http://", prometheus,
      "/alerts. Dashboards to import into Grafana, with that\naddress as their data "
      "source: ",
      InstalledFolder("dashboards"), "\n\n");
}

void PrintHowTo(const ClusterState& state, const Options& options) {
  const char* const dev =
      std::getenv("TANDEM_DEV");  // set by ./dev, which has a short form for each command
  std::string down = dev != nullptr ? "./dev down" : absl::StrCat(OwnExecutable(), " local down");
  if (!options.state_dir.empty()) absl::StrAppend(&down, " --state-dir ", options.state_dir);
  std::printf(R"(
The cluster runs: http://%s/v1, model "%s". Call it:

  curl -N http://%s/v1/chat/completions -H 'Content-Type: application/json' \
    -d '{"model": "%s", "stream": true, "messages": [{"role": "user", "content": "Hello!"}]}'

  from openai import OpenAI
  client = OpenAI(base_url="http://%s/v1", api_key="none")
  reply = client.chat.completions.create(model="%s", messages=[{"role": "user", "content": "Hello!"}])
  print(reply.choices[0].message.content)

%sLogs are in %s/logs. Stop it: %s
)",
              state.gateway.c_str(), state.config.model_name.c_str(), state.gateway.c_str(),
              state.config.model_name.c_str(), state.gateway.c_str(),
              state.config.model_name.c_str(), WhereToLook(state).c_str(),
              StateDir::At(options.state_dir).path().c_str(),
              options.foreground ? "Ctrl-C" : down.c_str());
  std::fflush(stdout);
}

// Stays until a stop signal or the supervisor's end; tells of daemons that died.
absl::Status StayAttached(const StateDir& dir, const ProcessRef& supervisor, StopSignals& signals) {
  std::map<std::string, int> restarts;
  for (;;) {
    const StopSignals::Woken woken = signals.Wait(supervisor, Duration::Seconds(1));
    if (woken == StopSignals::Woken::kSignal) return absl::OkStatus();
    if (woken == StopSignals::Woken::kProcessGone)
      return absl::UnavailableError("the supervisor has ended");
    const absl::StatusOr<ClusterState> state = dir.Load();
    if (!state.ok()) continue;
    for (const DaemonState& daemon : state->daemons) {
      if (daemon.restarts == std::exchange(restarts[daemon.name], daemon.restarts)) continue;
      std::printf("%s ended with %s and was started again (%d times)\n", daemon.name.c_str(),
                  daemon.last_exit.c_str(), daemon.restarts);
      std::fflush(stdout);
    }
  }
}

// Everything after the start; the caller stops the cluster when it fails.
absl::Status Use(const StateDir& dir, const ProcessRef& supervisor, const Options& options,
                 std::unique_ptr<StopSignals> signals) {
  ASSIGN_OR_RETURN(const ClusterState state, dir.Load());
  if (!options.no_chat) {
    signals.reset();  // Ctrl-C ends a long answer; what is attached stops with this process
    RETURN_IF_ERROR(RunFirstChat(state));
    signals = std::make_unique<StopSignals>();
  }
  if (options.once) return absl::OkStatus();
  PrintHowTo(state, options);
  return options.foreground ? StayAttached(dir, supervisor, *signals) : absl::OkStatus();
}

absl::Status Up(const Options& options) {
  ASSIGN_OR_RETURN(const ClusterConfig config, RequestedCluster(options));
  const StateDir dir = StateDir::At(options.state_dir);
  RETURN_IF_ERROR(dir.Create());
  const absl::StatusOr<int> lock = dir.Lock();
  if (absl::IsAlreadyExists(lock.status())) return ReportRunning(dir, config);
  RETURN_IF_ERROR(lock.status());

  auto signals =
      std::make_unique<StopSignals>();  // before the clock's thread, which must not take them
  RealTimeSource time;
  const absl::StatusOr<ProcessRef> supervisor =
      StartCluster(config, dir, *lock,
                   {.bin_dir = options.bin_dir,
                    .ready = Duration::Seconds(options.ready_seconds),
                    .attached = options.once || options.foreground},
                   time, *signals);
  const absl::Status used =
      supervisor.ok() ? Use(dir, *supervisor, options, std::move(signals)) : supervisor.status();
  if (used.ok() && !options.once && !options.foreground) return used;
  std::printf("stopping the cluster\n");
  std::fflush(stdout);
  bool stopped = false;
  const absl::Status down = StopCluster(dir, stopped);
  return used.ok() ? down : used;
}

void AddEmulation(CLI::App& command, Options& options) {
  std::vector<std::string> sets;
  for (const DeviceSet& set : DeviceSets()) sets.emplace_back(set.name);
  command
      .add_option("--backend", options.backend, "ggml, or emulated: devices of the catalog [ggml]")
      ->check(CLI::IsMember({"ggml", "emulated"}));
  command.add_option("--model-shape", options.emulation.model_shape,
                     "Emulated: the model, such as llama-3-70b");
  command.add_option("--devices", options.emulation.devices,
                     absl::StrCat("Emulated: ", absl::StrJoin(sets, ", ")));
  command.add_option("--weights", options.emulation.weights,
                     "Emulated: number format of the weights [the devices']");
  command.add_option(
      "--time-scale", options.emulation.time_scale,
      "Emulated: machine seconds for one of the devices' [auto: as the host allows]");
  command.add_option("--perturbation", options.emulation.perturbation,
                     "Emulated: share that each worker's cost table is off by [0]");
  command.add_option("--numerics", options.emulation.numerics,
                     "Emulated: synthetic (a hash chain), model (the text of --model) or "
                     "model:FILE.gguf [synthetic]");
  command.add_option("--payload", options.emulation.payload,
                     "Emulated: elided or real rows [elided; real with numerics model]");
}

}  // namespace

void AddLocalUp(CLI::App& local, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command =
      local.add_subcommand("up", "Starts a cluster, waits until it is ready and sends it one chat");
  CLI::Option* topology =
      command
          ->add_option("--topology", options->topology,
                       "colocated, pd, afd, pd-afd, pd-sram or sram [pd-afd]")
          ->check(CLI::IsMember({"colocated", "pd", "afd", "pd-afd", "pd-sram", "sram"}));
  CLI::Option* shape = command->add_option("--shape", options->shape,
                                           "Workers of each pool, such as 1P2A2F [one each]");
  CLI::Option* ffn_shards =
      command
          ->add_option("--ffn-shards", options->ffn_shards,
                       "How FFN workers divide the FFN: replicas, layers or columns [replicas]")
          ->check(CLI::IsMember({"replicas", "layers", "columns"}));
  command
      ->add_option("--config", options->config_file,
                   "A cluster in one YAML file, as deploy/local holds them")
      ->excludes(topology)
      ->excludes(shape)
      ->excludes(ffn_shards);
  command->add_option("--model", options->model,
                      "GGUF file [TANDEM_MODEL, or SmolLM2-135M-Instruct]");
  command->add_option("--model-name", options->model_name,
                      "Name in the API [the file's, without .gguf]");
  command->add_option("--port", options->port, "Gateway's port [8080, or the next free one]")
      ->check(CLI::Range(1, 65535));
  command->add_flag("--monitoring", options->monitoring,
                    "Start Prometheus beside it, with the rules of share/tandem/prometheus");
  command
      ->add_option("--monitoring-port", options->monitoring_port,
                   "Prometheus' port; implies --monitoring [9090, or the next free one]")
      ->check(CLI::Range(1, 65535));
  AddEmulation(*command, *options);
  AddTlsOptions(*command, options->tls);
  AddStateDirOption(*command, options->state_dir);
  command->add_option("--bin-dir", options->bin_dir,
                      "Folder of the daemons' programs [tandemctl's own]");
  command
      ->add_option("--ready-timeout", options->ready_seconds,
                   "Seconds until it must be ready [180]")
      ->check(CLI::Range(1, 86400));
  command->add_flag("--no-chat", options->no_chat, "Send no chat");
  CLI::Option* once = command->add_flag("--once", options->once, "Stop it after the answer");
  command->add_flag("--foreground", options->foreground, "Stay attached; Ctrl-C stops it")
      ->excludes(once);
  command->callback([options, &exit_code] { exit_code = Report(Up(*options)); });
}

}  // namespace tandem::ctl
