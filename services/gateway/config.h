#pragma once

// tandem-gateway's one configuration: defaults, then the YAML file of --config, then flags; checked
// once, at start.

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "services/runtime/tls_files.h"

namespace tandem::gateway {

struct GatewayConfig {
  std::string listen = "127.0.0.1:8080";
  std::vector<std::string> routers = {"127.0.0.1:9000"};
  std::string model;       // GGUF file, for its vocabulary and chat template; required
  std::string model_name;  // what clients ask for; default: the file's name without its ending
  std::string metrics_listen = "127.0.0.1:9464";
  uint64_t max_body_bytes = 8 << 20;
  uint32_t max_connections = 4096;
  uint32_t threads = 2;
  double drain_timeout_seconds = 60;
  double slo_ttft_ms = 2000;  // what requests are held against in the metrics; of the devices'
  double slo_tpot_ms = 50;    // time
  TlsFiles tls;               // of the links to routers and workers
  std::string api_keys_file;  // who may ask (keys/api_keys.h); empty: anybody
  std::string log_format = "text";  // or json
};

struct GatewayCommand {
  GatewayConfig config;
  bool print_config = false;
};

// nullopt: --help or --version was printed. kInvalidArgument names the flag or key and the value.
absl::StatusOr<std::optional<GatewayCommand>> ParseGatewayCommand(int argc,
                                                                  const char* const* argv);
std::string ToYaml(const GatewayConfig& config);

}  // namespace tandem::gateway
