#pragma once

#include <string>

#include "services/ctl/state.h"

namespace tandem::ctl {

// A table of the cluster's processes for people. `now`: seconds since 1970.
std::string DescribeCluster(const ClusterState& state, int64_t now);

// {"running": true, "topology", "shape", "model", "model_name", "gateway", "router",
// "router_admin", "state_dir", "since",
//  "supervisor": {"pid"}, "processes": [{"name", "kind", "state", "pid", "restarts", "last_exit",
//  "uptime_seconds", "address", "admin_address", "metrics_url", "log"}]}
boost::json::value ClusterJson(const ClusterState& state, const StateDir& dir, int64_t now);

// "3m12s".
std::string ShortDuration(int64_t seconds);

}  // namespace tandem::ctl
