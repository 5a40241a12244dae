#pragma once

// From a cluster's description to the command line, ports and files of each of its daemons.

#include <absl/status/statusor.h>

#include <string>

#include "services/ctl/cluster.h"
#include "services/ctl/ports.h"
#include "services/ctl/state.h"

namespace tandem::ctl {

// First ports, DESIGN section 9; later daemons take the next ones. All on 127.0.0.1.
inline constexpr int kGatewayPort = 8080, kRouterPort = 9000, kWorkerPort = 9200, kAdminPort = 9300,
                     kMetricsPort = 9464;

// A cluster ready to start. Taken default ports give way to the next free one; a
// `config.gateway_port` that was asked for does not: kFailedPrecondition. kNotFound: a daemon's
// program is not in `bin_dir`, the model file is missing, or
// Prometheus, where config.monitoring asks for one (monitoring.h).
absl::StatusOr<ClusterState> PlanLaunch(const ClusterConfig& config, const StateDir& dir,
                                        const std::string& bin_dir, PortAllotter& ports);

}  // namespace tandem::ctl
