#include "services/ctl/start_cluster.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <utility>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/emulation.h"
#include "services/ctl/launch.h"
#include "services/ctl/monitoring.h"
#include "services/ctl/ready.h"
#include "services/ctl/stop.h"
#include "services/ctl/time_scale.h"
#include "services/runtime/installed.h"

namespace tandem::ctl {
namespace {

// Where the search for a time scale begins, and where it gives up.
constexpr double kFirstTimeScale = 1;
constexpr double kLargestOwnScale = 1000;

// Starts the supervisor, which takes over the lock and outlives this process; if `attached`, it
// stops when this process ends.
absl::StatusOr<ProcessRef> StartSupervisor(const StateDir& dir, int lock_fd,
                                           const PortClaims& claims, bool attached) {
  std::vector<int> inherited = claims.locks();
  inherited.push_back(lock_fd);
  const std::string log = dir.LogFile("supervisor");
  const int log_fd = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  if (log_fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", log));
  absl::StatusOr<ProcessRef> supervisor =
      Spawn({.argv = {OwnExecutable(), "local", "supervise", "--state-dir", dir.path(), "--lock-fd",
                      absl::StrCat(lock_fd)},
             .output_fd = log_fd,
             .new_session = true,
             .signal_on_parent_death = attached ? SIGTERM : 0,
             .inherit_fds = std::move(inherited)});
  close(log_fd);
  return supervisor;
}

// Starts the cluster's processes and waits until they are ready. `lock` goes to the supervisor.
absl::StatusOr<ProcessRef> Start(const ClusterConfig& config, const StateDir& dir, int lock,
                                 const StartOptions& options, TimeSource& time,
                                 StopSignals& signals) {
  const std::string bin_dir = options.bin_dir.empty()
                                  ? std::filesystem::path(OwnExecutable()).parent_path().string()
                                  : options.bin_dir;
  PortClaims claims(StateDir::At("").path() + "/ports");
  // Looked at again once it is claimed: who claimed it before may listen by now.
  PortAllotter ports([&claims](int port) {
    return LoopbackPortIsFree(port) && claims.Claim(port) && LoopbackPortIsFree(port);
  });
  ASSIGN_OR_RETURN(const ClusterState state, PlanLaunch(config, dir, bin_dir, ports));
  RETURN_IF_ERROR(WriteMonitoringFiles(state, dir, InstalledFolder("prometheus")));
  RETURN_IF_ERROR(dir.Save(state));
  std::fprintf(options.progress, "starting %s %s: %zu processes, gateway %s, logs in %s/logs\n",
               config.topology.c_str(), ShapeOf(config).c_str(), state.daemons.size(),
               state.gateway.c_str(), dir.path().c_str());
  std::fflush(options.progress);
  const Instant began = time.Now();
  absl::StatusOr<ProcessRef> supervisor = StartSupervisor(dir, lock, claims, options.attached);
  close(lock);
  RETURN_IF_ERROR(supervisor.status());
  RETURN_IF_ERROR(WaitUntilReady(dir, *supervisor, signals, time, options.ready, options.progress));
  std::fprintf(options.progress, "ready after %.1f s\n", (time.Now() - began).seconds());
  std::fflush(options.progress);
  return supervisor;
}

// Starts an emulated cluster at ever larger time scales until the host keeps up.
absl::StatusOr<ProcessRef> StartAtOwnScale(ClusterConfig config, const StateDir& dir, int lock,
                                           const StartOptions& options, TimeSource& time,
                                           StopSignals& signals) {
  double scale = kFirstTimeScale;
  for (;;) {
    ScaleCluster(config, scale);
    ASSIGN_OR_RETURN(const ProcessRef supervisor, Start(config, dir, lock, options, time, signals));
    ASSIGN_OR_RETURN(const ClusterState state, dir.Load());
    ASSIGN_OR_RETURN(const double lag, MeasureLag(state));
    std::fprintf(options.progress,
                 "time_scale %g: the host falls %.1f %% behind the emulated devices\n", scale,
                 100 * lag);
    std::fflush(options.progress);
    if (lag <= kMostLag) return supervisor;
    scale = NextTimeScale(scale, lag);
    if (scale > kLargestOwnScale) {
      return absl::ResourceExhaustedError(absl::StrCat("the host does not keep up at time_scale ",
                                                       kLargestOwnScale, "; name one yourself"));
    }
    bool stopped = false;
    RETURN_IF_ERROR(StopCluster(dir, stopped));
    ASSIGN_OR_RETURN(lock, dir.Lock());
  }
}

}  // namespace

absl::StatusOr<ProcessRef> StartCluster(const ClusterConfig& config, const StateDir& dir, int lock,
                                        const StartOptions& options, TimeSource& time,
                                        StopSignals& signals) {
  const bool own_scale =
      !config.emulation.model_shape.empty() && config.emulation.time_scale == "auto";
  return own_scale ? StartAtOwnScale(config, dir, lock, options, time, signals)
                   : Start(config, dir, lock, options, time, signals);
}

std::string DefaultModel() {
  if (const char* model = std::getenv("TANDEM_MODEL"); model != nullptr && *model != '\0')
    return model;
  const char* cache = std::getenv("TANDEM_CACHE");
  const char* home = std::getenv("HOME");
  return absl::StrCat(cache != nullptr && *cache != '\0'
                          ? std::string(cache)
                          : absl::StrCat(home != nullptr ? home : "", "/.cache/tandem"),
                      "/models/SmolLM2-135M-Instruct.Q4_1.gguf");
}

}  // namespace tandem::ctl
