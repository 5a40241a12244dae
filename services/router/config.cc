#include "services/router/config.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <set>

#include "scheduler/base/status.h"
#include "scheduler/model/yaml_reader.h"
#include "services/runtime/yaml_file.h"

namespace tandem::router {
namespace {

constexpr double kMaxSeconds = 86'400;
constexpr int64_t kMaxCount = 1 << 24;

// Calls `text(key, value, help)`, `count(...)` or `seconds(...)` for each field, in the order of
// the struct.
template <typename Text, typename Count, typename Seconds>
void ForEachField(RouterConfig& c, Text text, Count count, Seconds seconds) {
  text("listen", c.listen, "gRPC address for workers and gateways");
  text("admin_listen", c.admin_listen, "address of /livez, /readyz and the gRPC Admin service");
  text("metrics_listen", c.metrics_listen, "address of /metrics");
  text("router_id", c.router_id, "this router's name; empty: router-<pid>");
  text("model_name", c.model_name, "the model that this router serves; required");
  count("max_queued_requests", c.max_queued_requests, "requests that may wait; past it 429");
  count("max_queued_resumes", c.max_queued_resumes, "resumed requests that may wait");
  count("max_sequences", c.max_sequences, "sequences placed and not ended");
  count("max_workers", c.max_workers, "workers that may be registered");
  count("max_gateways", c.max_gateways, "gateways that may be connected");
  count("max_prompt_tokens", c.max_prompt_tokens, "prompt and emitted ids of one request");
  seconds("heartbeat_interval_seconds", c.heartbeat_interval_seconds, "told to workers");
  seconds("worker_lease_seconds", c.worker_lease_seconds, "silence after which a worker is lost");
  seconds("gateway_lease_seconds", c.gateway_lease_seconds,
          "told to workers: a broken token stream may come back for so long");
  seconds("reservation_lease_seconds", c.reservation_lease_seconds,
          "a reservation without a KV frame lasts so long");
  seconds("command_timeout_seconds", c.command_timeout_seconds,
          "a worker that does not answer for so long is closed");
  seconds("queue_timeout_seconds", c.queue_timeout_seconds,
          "longest wait while no topology is ready");
  seconds("drain_timeout_seconds", c.drain_timeout_seconds,
          "after SIGTERM, for what is queued or in prefill");
  seconds("slo_tpot_ms", c.slo_tpot_ms,
          "time per output token that a baseline must keep, in `tandemctl tco`; milliseconds");
  seconds("slo_ttft_ms", c.slo_ttft_ms, "time to the first token, likewise");
  text("prices", c.prices, "YAML file of what devices cost by the hour; empty: what workers say");
  BindTlsFiles(c.tls, [&](const char* flag, std::string& value, const char* help) {
    text(absl::StrReplaceAll(flag, {{"-", "_"}}).c_str(), value, help);
  });
  text("log_format", c.log_format, "text or json");
  text("log_level", c.log_level, "trace, debug, info, warning or error");
}

absl::Status ReadYaml(const std::string& path, RouterConfig& config) {
  ASSIGN_OR_RETURN(const YAML::Node node, LoadYamlFile(path));
  YamlReader reader(node, path);
  ForEachField(
      config, [&](const char* key, std::string& value, const char*) { reader.Get(key, value); },
      [&](const char* key, uint32_t& value, const char*) { reader.Get(key, value, 1, kMaxCount); },
      [&](const char* key, double& value, const char*) { reader.Get(key, value, 0, kMaxSeconds); });
  return reader.Finish();
}

// "worker_lease_seconds" -> "--worker-lease,--worker-lease-seconds".
std::string FlagsOf(const std::string& key) {
  const std::string flag = absl::StrCat("--", absl::StrReplaceAll(key, {{"_", "-"}}));
  constexpr absl::string_view kUnit = "-seconds";
  if (flag.size() <= kUnit.size() || flag.substr(flag.size() - kUnit.size()) != kUnit) return flag;
  return absl::StrCat(flag.substr(0, flag.size() - kUnit.size()), ",", flag);
}

struct Flags {
  std::string config_file;
  bool print_config = false;
};

// Flags that are not given leave `config` alone. The string is what --help or --version prints.
absl::StatusOr<std::string> ReadFlags(int argc, const char* const* argv, absl::string_view version,
                                      RouterConfig& config, Flags& flags) {
  CLI::App app("Tandem's router: queue, placement and groups.", "tandem-router");
  app.set_version_flag("--version", std::string(version));
  app.add_option("--config", flags.config_file, "YAML file; flags rule over it");
  app.add_flag("--print-config", flags.print_config, "print the config as YAML and exit");
  ForEachField(
      config,
      [&](const char* key, std::string& value, const char* help) {
        app.add_option(FlagsOf(key), value, help)->capture_default_str();
      },
      [&](const char* key, uint32_t& value, const char* help) {
        app.add_option(FlagsOf(key), value, help)
            ->check(CLI::Range(int64_t{1}, kMaxCount))
            ->capture_default_str();
      },
      [&](const char* key, double& value, const char* help) {
        app.add_option(FlagsOf(key), value, help)
            ->check(CLI::Range(0.0, kMaxSeconds))
            ->capture_default_str();
      });
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return app.help();
  } catch (const CLI::CallForVersion& asked) {
    return absl::StrCat(asked.what(), "\n");
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  return std::string();
}

}  // namespace

absl::StatusOr<RouterCommandLine> ParseCommandLine(int argc, const char* const* argv,
                                                   absl::string_view version) {
  RouterCommandLine line;
  RouterConfig only_for_the_file;
  Flags flags;
  ASSIGN_OR_RETURN(line.done, ReadFlags(argc, argv, version, only_for_the_file, flags));
  if (!line.done.empty()) return line;
  if (!flags.config_file.empty()) RETURN_IF_ERROR(ReadYaml(flags.config_file, line.config));
  RETURN_IF_ERROR(ReadFlags(argc, argv, version, line.config, flags).status());
  line.print_config = flags.print_config;
  RETURN_IF_ERROR(CheckConfig(line.config));
  return line;
}

absl::Status CheckConfig(const RouterConfig& config) {
  if (config.model_name.empty())
    return absl::InvalidArgumentError("model_name is empty: --model-name is required");
  if (config.heartbeat_interval_seconds <= 0)
    return absl::InvalidArgumentError("heartbeat_interval_seconds is 0");
  if (config.worker_lease_seconds <= config.heartbeat_interval_seconds) {
    return absl::InvalidArgumentError(absl::StrCat(
        "worker_lease_seconds ", config.worker_lease_seconds,
        " is not above heartbeat_interval_seconds ", config.heartbeat_interval_seconds));
  }
  if (config.slo_tpot_ms <= 0) return absl::InvalidArgumentError("slo_tpot_ms is 0");
  if (config.slo_ttft_ms <= 0) return absl::InvalidArgumentError("slo_ttft_ms is 0");
  RETURN_IF_ERROR(CheckTlsFiles(config.tls));
  RETURN_IF_ERROR(ParseLogFormat(config.log_format).status());
  static const std::set<std::string> kLevels = {"trace", "debug", "info", "warning", "error"};
  if (!kLevels.contains(config.log_level)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "log_level: '", config.log_level, "' is none of trace, debug, info, warning, error"));
  }
  return absl::OkStatus();
}

std::string PrintConfig(const RouterConfig& config) {
  YAML::Emitter out;
  out << YAML::BeginMap;
  RouterConfig copy = config;
  const auto emit = [&](const char* key, auto& value, const char*) {
    out << YAML::Key << key << YAML::Value << value;
  };
  ForEachField(copy, emit, emit, emit);
  out << YAML::EndMap;
  return absl::StrCat(out.c_str(), "\n");
}

}  // namespace tandem::router
