#pragma once

// The router's one config: YAML, then flags over it, checked once.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <string>

#include "scheduler/base/time.h"
#include "services/runtime/log.h"
#include "services/runtime/tls_files.h"

namespace tandem::router {

// A field's YAML key is its name; its flag is the same with dashes (a `_seconds` may be left out).
struct RouterConfig {
  std::string listen = "127.0.0.1:9000";          // gRPC: workers and gateways
  std::string admin_listen = "127.0.0.1:9300";    // HTTP /livez, /readyz; gRPC Admin
  std::string metrics_listen = "127.0.0.1:9464";  // HTTP /metrics
  std::string router_id;                          // empty: "router-<pid>"
  std::string model_name;                         // required
  uint32_t max_queued_requests = 1024;
  uint32_t max_queued_resumes = 4096;
  uint32_t max_sequences = 65536;
  uint32_t max_workers = 1024;
  uint32_t max_gateways = 1024;
  uint32_t max_prompt_tokens = 1 << 20;
  double heartbeat_interval_seconds = 1;
  double worker_lease_seconds = 5;
  double gateway_lease_seconds = 10;  // how long a broken token stream may take to come back
  double reservation_lease_seconds = 30;
  double command_timeout_seconds = 10;
  double queue_timeout_seconds = 60;
  double drain_timeout_seconds = 30;  // after SIGTERM, for what is queued or in prefill
  double slo_tpot_ms = 50;          // what a baseline must keep that the cluster's cost is compared
  double slo_ttft_ms = 2000;        // with; of the devices' time
  std::string prices;               // YAML: what devices cost by the hour; empty: as they say
  TlsFiles tls;                     // of all gRPC links; HTTP stays plain
  std::string log_format = "text";  // or "json"
  std::string log_level = "info";   // trace, debug, info, warning, error
};

// What the command line asks for.
struct RouterCommandLine {
  RouterConfig config;
  bool print_config = false;
  std::string done;  // not empty: --help or --version; print it and exit 0
};

// kInvalidArgument names the flag, or file, line and key. `version` is printed by --version.
absl::StatusOr<RouterCommandLine> ParseCommandLine(int argc, const char* const* argv,
                                                   absl::string_view version);

// Values that cannot work together: "worker_lease_seconds 1 is not above heartbeat_interval_seconds
// 1".
absl::Status CheckConfig(const RouterConfig& config);

// As YAML that --config reads back to the same config.
std::string PrintConfig(const RouterConfig& config);

}  // namespace tandem::router
