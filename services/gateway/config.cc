#include "services/gateway/config.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>
#include <yaml-cpp/yaml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>

#include "scheduler/base/status.h"
#include "scheduler/model/yaml_reader.h"
#include "services/runtime/yaml_file.h"

namespace tandem::gateway {
namespace {

// A flag and its key are one thing: both are named here, once.
template <typename Bind>
void BindAll(GatewayConfig& c, Bind&& bind) {
  bind("listen", c.listen, "host:port of the OpenAI-compatible API");
  bind("router", c.routers, "host:port of a router; may be given several times");
  bind("model", c.model, "GGUF file, for its vocabulary and chat template");
  bind("model-name", c.model_name, "name that clients ask for; default: the file's name");
  bind("metrics-listen", c.metrics_listen, "host:port of GET /metrics");
  bind("max-body-bytes", c.max_body_bytes, "largest request body; larger: 413");
  bind("max-connections", c.max_connections, "open at once; more are answered 503");
  bind("threads", c.threads, "threads that serve connections");
  bind("drain-timeout-seconds", c.drain_timeout_seconds,
       "from SIGTERM until running answers end with an error");
  bind("slo-ttft-ms", c.slo_ttft_ms, "time to the first token that the metrics call met");
  bind("slo-tpot-ms", c.slo_tpot_ms, "time per further token that the metrics call met");
  BindTlsFiles(c.tls, bind);
  bind("api-keys-file", c.api_keys_file,
       "file of API keys' names and SHA-256 sums, a line each; empty: anybody may ask");
  bind("log-format", c.log_format, "text or json");
}

std::string KeyOf(std::string flag) {
  std::replace(flag.begin(), flag.end(), '-', '_');
  return flag == "router" ? "routers" : flag;
}

absl::Status ReadFile(const std::string& path, GatewayConfig& config) {
  ASSIGN_OR_RETURN(YAML::Node node, LoadYamlFile(path));
  YamlReader reader(node, path);
  BindAll(config, [&](const std::string& flag, auto& value, const char*) {
    using Value = std::decay_t<decltype(value)>;
    if constexpr (std::is_integral_v<Value>) {
      reader.Get(KeyOf(flag), value, 1, int64_t{1} << 32);
    } else if constexpr (std::is_same_v<Value, double>) {
      reader.Get(KeyOf(flag), value, 0.0, 86400.0);
    } else {
      reader.Get(KeyOf(flag), value);
    }
  });
  return reader.Finish();
}

absl::Status Check(GatewayConfig& config) {
  if (config.model.empty())
    return absl::InvalidArgumentError("model: name a GGUF file with --model");
  if (config.routers.empty())
    return absl::InvalidArgumentError("router: at least one address is needed");
  if (config.threads < 1 || config.threads > 256) {
    return absl::InvalidArgumentError(
        absl::StrCat("threads: ", config.threads, " is not in [1, 256]"));
  }
  for (const auto& [key, value] : {std::pair("slo_ttft_ms", config.slo_ttft_ms),
                                   std::pair("slo_tpot_ms", config.slo_tpot_ms)}) {
    if (!(value > 0 && value <= 86400))
      return absl::InvalidArgumentError(absl::StrCat(key, ": ", value, " is not in (0, 86400]"));
  }
  RETURN_IF_ERROR(CheckTlsFiles(config.tls));
  if (config.log_format != "text" && config.log_format != "json") {
    return absl::InvalidArgumentError(
        absl::StrCat("log_format: '", config.log_format, "' is neither text nor json"));
  }
  if (config.model_name.empty())
    config.model_name = std::filesystem::path(config.model).stem().string();
  return absl::OkStatus();
}

}  // namespace

std::string ToYaml(const GatewayConfig& config) {
  YAML::Emitter out;
  out << YAML::BeginMap;
  GatewayConfig copy = config;
  BindAll(copy, [&](const std::string& flag, auto& value, const char*) {
    out << YAML::Key << KeyOf(flag) << YAML::Value << value;
  });
  out << YAML::EndMap;
  return absl::StrCat(out.c_str(), "\n");
}

absl::StatusOr<std::optional<GatewayCommand>> ParseGatewayCommand(int argc,
                                                                  const char* const* argv) {
  GatewayCommand command;
  std::string file;
  for (int i = 1; i < argc; ++i) {  // the file first, so that flags override it
    const absl::string_view word = argv[i];
    if (word == "--config" && i + 1 < argc) file = argv[i + 1];
    if (word.substr(0, 9) == "--config=") file = std::string(word.substr(9));
  }
  if (!file.empty()) RETURN_IF_ERROR(ReadFile(file, command.config));
  CLI::App app{"tandem-gateway: the OpenAI-compatible API in front of a Tandem cluster"};
  app.set_version_flag("--version", std::string("tandem-gateway ") + TANDEM_VERSION);
  app.add_option("--config", file, "YAML file with these options as keys (- becomes _)");
  app.add_flag("--print-config", command.print_config, "print the configuration as YAML and exit");
  BindAll(command.config, [&](const std::string& flag, auto& value, const char* help) {
    app.add_option("--" + flag, value, help)->capture_default_str();
  });
  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& done) {
    app.exit(done);
    return std::nullopt;
  } catch (const CLI::ParseError& error) {
    return absl::InvalidArgumentError(error.what());
  }
  if (!command.print_config) RETURN_IF_ERROR(Check(command.config));
  return command;
}

}  // namespace tandem::gateway
