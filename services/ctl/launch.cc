#include "services/ctl/launch.h"

#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <cstdlib>
#include <utility>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/monitoring.h"

namespace tandem::ctl {
namespace {

std::string Loopback(int port) { return absl::StrCat("127.0.0.1:", port); }

absl::StatusOr<std::string> FindProgram(const std::string& bin_dir, const std::string& name) {
  std::string path = absl::StrCat(bin_dir, "/", name);
  if (access(path.c_str(), X_OK) != 0) {
    return absl::NotFoundError(
        absl::StrCat("no program ", path, "; build it, or name its folder with --bin-dir"));
  }
  return path;
}

void AddFlag(std::vector<std::string>& argv, const std::string& name, const std::string& value) {
  argv.push_back("--" + name);
  argv.push_back(value);
}

void AddFlags(std::vector<std::string>& argv, const Flags& flags) {
  for (const auto& [name, value] : flags) AddFlag(argv, name, value);
}

void AddTls(std::vector<std::string>& argv, TlsFiles tls) {
  if (!tls.given()) return;
  BindTlsFiles(tls, [&argv](const char* flag, const std::string& value, const char*) {
    AddFlag(argv, flag, value);
  });
}

// Addresses and log of a daemon; its first three flags.
absl::StatusOr<DaemonState> NewDaemon(std::string name, std::string kind, const StateDir& dir,
                                      const std::string& bin_dir, int port, int metrics_port) {
  DaemonState daemon;
  ASSIGN_OR_RETURN(std::string program, FindProgram(bin_dir, "tandem-" + kind));
  daemon.address = Loopback(port);
  daemon.metrics_address = Loopback(metrics_port);
  daemon.log = dir.LogFile(name);
  daemon.name = std::move(name);
  daemon.kind = std::move(kind);
  daemon.argv.push_back(std::move(program));
  AddFlag(daemon.argv, "listen", daemon.address);
  AddFlag(daemon.argv, "metrics-listen", daemon.metrics_address);
  return daemon;
}

absl::StatusOr<DaemonState> PlanWorker(const ClusterConfig& config, const WorkerSet& set, int index,
                                       const std::string& router, const StateDir& dir,
                                       const std::string& bin_dir, PortAllotter& ports) {
  const std::string name = absl::StrCat(set.pool, "-", index);
  ASSIGN_OR_RETURN(const int port, ports.TakeFrom(kWorkerPort, name));
  ASSIGN_OR_RETURN(const int metrics_port, ports.TakeFrom(kMetricsPort, name));
  ASSIGN_OR_RETURN(const int admin_port, ports.TakeFrom(kAdminPort, name));
  ASSIGN_OR_RETURN(DaemonState daemon, NewDaemon(name, "worker", dir, bin_dir, port, metrics_port));
  daemon.admin_address = Loopback(admin_port);
  AddFlag(daemon.argv, "admin-listen", daemon.admin_address);
  AddFlag(daemon.argv, "advertise", daemon.address);
  AddFlag(daemon.argv, "router", router);
  AddFlag(daemon.argv, "worker-id", name);
  AddFlag(daemon.argv, "pool", set.pool);
  AddFlag(daemon.argv, "stages", set.stages);
  AddFlag(daemon.argv, "memory-class", set.memory_class);
  AddFlag(daemon.argv, "model", config.model);
  AddFlag(daemon.argv, "model-name", config.model_name);
  if (!set.shards.empty()) {
    const ShardText& shard = set.shards[static_cast<size_t>(index) % set.shards.size()];
    AddFlag(daemon.argv, "layers", shard.layers);
    AddFlag(daemon.argv, "column", shard.column);
  }
  AddTls(daemon.argv, config.tls);
  AddFlags(daemon.argv, set.flags);
  return daemon;
}

}  // namespace

absl::StatusOr<ClusterState> PlanLaunch(const ClusterConfig& config, const StateDir& dir,
                                        const std::string& bin_dir, PortAllotter& ports) {
  if (access(config.model.c_str(), R_OK) != 0) {
    return absl::NotFoundError(
        absl::StrCat("cannot read model file ", config.model,
                     "; name one with --model, or fetch the default with ./dev setup"));
  }
  ClusterState state;
  state.config = config;
  const absl::StatusOr<int> gateway_port = config.gateway_port != 0
                                               ? ports.Take(config.gateway_port, "gateway")
                                               : ports.TakeFrom(kGatewayPort, "gateway");
  if (!gateway_port.ok()) return gateway_port.status();
  ASSIGN_OR_RETURN(const int router_port, ports.TakeFrom(kRouterPort, "router"));
  ASSIGN_OR_RETURN(const int admin_port, ports.TakeFrom(kAdminPort, "router"));
  ASSIGN_OR_RETURN(const int gateway_metrics, ports.TakeFrom(kMetricsPort, "gateway"));
  ASSIGN_OR_RETURN(const int router_metrics, ports.TakeFrom(kMetricsPort, "router"));
  state.gateway = Loopback(*gateway_port);
  state.router = Loopback(router_port);
  state.router_admin = Loopback(admin_port);

  ASSIGN_OR_RETURN(DaemonState gateway,
                   NewDaemon("gateway", "gateway", dir, bin_dir, *gateway_port, gateway_metrics));
  AddFlag(gateway.argv, "router", state.router);
  AddFlag(gateway.argv, "model", config.model);
  AddFlag(gateway.argv, "model-name", config.model_name);
  AddTls(gateway.argv, config.tls);
  AddFlags(gateway.argv, config.gateway_flags);
  state.daemons.push_back(std::move(gateway));

  ASSIGN_OR_RETURN(DaemonState router,
                   NewDaemon("router", "router", dir, bin_dir, router_port, router_metrics));
  router.admin_address = state.router_admin;
  AddFlag(router.argv, "admin-listen", router.admin_address);
  AddFlag(router.argv, "model-name", config.model_name);
  AddTls(router.argv, config.tls);
  AddFlags(router.argv, config.router_flags);
  state.daemons.push_back(std::move(router));

  for (const WorkerSet& set : config.workers) {
    for (int i = 0; i < set.count; ++i) {
      ASSIGN_OR_RETURN(DaemonState worker,
                       PlanWorker(config, set, i, state.router, dir, bin_dir, ports));
      state.daemons.push_back(std::move(worker));
    }
  }
  if (config.monitoring) {
    const char* const path = std::getenv("PATH");
    ASSIGN_OR_RETURN(DaemonState prometheus,
                     PlanPrometheus(config, dir, path != nullptr ? path : "", ports));
    state.daemons.push_back(std::move(prometheus));
  }
  return state;
}

}  // namespace tandem::ctl
