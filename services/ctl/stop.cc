#include "services/ctl/stop.h"

#include <absl/strings/str_cat.h>
#include <signal.h>
#include <unistd.h>

#include "scheduler/base/status.h"
#include "services/ctl/process.h"

namespace tandem::ctl {
namespace {

// Two phases of the supervisor's grace, and room to spare.
constexpr Duration kSupervisorStop = Duration::Seconds(60);
constexpr Duration kKill = Duration::Seconds(10);

bool Kill(const ProcessRef& process) {
  SignalProcess(process, SIGKILL);
  return WaitUntilGone(process, kKill);
}

}  // namespace

absl::Status StopCluster(const StateDir& dir, bool& stopped) {
  stopped = false;
  absl::StatusOr<ClusterState> state = dir.Load();
  if (absl::IsNotFound(state.status())) return absl::OkStatus();
  RETURN_IF_ERROR(state.status());
  if (state->supervisor.pid == 0) {
    const absl::StatusOr<int> lock = dir.Lock();
    if (absl::IsAlreadyExists(lock.status())) {
      return absl::UnavailableError(
          absl::StrCat("the cluster in ", dir.path(), " is being started this moment; try again"));
    }
    RETURN_IF_ERROR(lock.status());
    close(*lock);
  }
  if (SignalProcess(state->supervisor, SIGTERM)) {
    stopped = true;
    if (!WaitUntilGone(state->supervisor, kSupervisorStop) && !Kill(state->supervisor)) {
      return absl::InternalError(
          absl::StrCat("supervisor, pid ", state->supervisor.pid, ", outlived SIGKILL"));
    }
    state = dir.Load();  // the last word on its daemons
    RETURN_IF_ERROR(state.status());
  }
  for (const DaemonState& daemon : state->daemons) {
    if (!IsAlive(daemon.process)) continue;
    stopped = true;
    if (!Kill(daemon.process)) {
      return absl::InternalError(
          absl::StrCat(daemon.name, ", pid ", daemon.process.pid, ", outlived SIGKILL"));
    }
  }
  dir.Forget();
  return absl::OkStatus();
}

}  // namespace tandem::ctl
