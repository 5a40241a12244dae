#pragma once

// Prometheus beside a local cluster: one more process of the supervisor, on loopback, with the
// product's rules and every daemon's metrics address. Its files lie in STATE_DIR/prometheus.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>

#include "services/ctl/ports.h"
#include "services/ctl/state.h"

namespace tandem::ctl {

inline constexpr absl::string_view kPrometheusKind = "prometheus";  // of its DaemonState
inline constexpr int kPrometheusPort = 9090;                        // the first one that is tried

// How to start it. `path` is the environment's PATH. kNotFound: no program `prometheus` there, and
// which package has it; kFailedPrecondition: config.monitoring_port was asked for and is taken.
absl::StatusOr<DaemonState> PlanPrometheus(const ClusterConfig& config, const StateDir& dir,
                                           absl::string_view path, PortAllotter& ports);

// Writes what it is started with: the configuration and the rules of `share` (the installed folder
// `prometheus`), and where the daemons of `state` export. What it knew of an earlier cluster in
// this folder is removed. Nothing to do without a Prometheus in `state`. kNotFound: no rules in
// `share`.
absl::Status WriteMonitoringFiles(const ClusterState& state, const StateDir& dir,
                                  const std::string& share);

// host:port of the cluster's Prometheus; empty: it has none.
std::string PrometheusAddress(const ClusterState& state);

}  // namespace tandem::ctl
