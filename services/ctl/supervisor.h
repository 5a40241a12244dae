#pragma once

// Keeps the daemons of a local cluster running, as a kubelet would.

#include <absl/status/status.h>

#include <functional>
#include <memory>
#include <vector>

#include "scheduler/base/time.h"
#include "services/ctl/state.h"

namespace tandem::ctl {

struct SupervisorOptions {
  Duration grace = Duration::Seconds(20);  // between SIGTERM and SIGKILL
  std::function<int64_t()> unix_seconds;   // wall clock, for people
};

// Starts every daemon, gives each a log file, starts again what ends (whatever its exit code) after
// a back-off, and writes STATE_DIR/state.json at each change. Daemons get SIGKILL from the kernel
// if this process dies, so none is orphaned.
//
// Takes over the process: SIGCHLD, SIGTERM, SIGINT and SIGHUP are blocked and read from a
// descriptor. One thread. Other threads must block them too: call BlockSignals before the first is
// made.
class Supervisor {
 public:
  Supervisor(ClusterState state, StateDir dir, TimeSource& time, SupervisorOptions options);
  ~Supervisor();
  static void BlockSignals();

  // Returns after SIGTERM, SIGINT or SIGHUP, when every daemon has ended: first the gateway, which
  // finishes its streams with the others still there, then the rest. A second signal kills at once.
  absl::Status Run();

 private:
  struct Daemon;

  absl::Status WatchSignals();
  void Start(Daemon& daemon);
  void ReadOutput(Daemon& daemon);
  void ReadSignals();
  void Reap();
  void OnExit(Daemon& daemon, int wait_status);
  void StartDue();
  void AdvanceStop();
  void Terminate(Daemon& daemon);
  void KillAll();
  bool AllStopped() const;
  int PollTimeoutMs() const;
  void Save();

  ClusterState state_;
  const StateDir dir_;
  TimeSource& time_;
  const SupervisorOptions options_;
  std::vector<std::unique_ptr<Daemon>> daemons_;  // in the order of state_.daemons
  int signal_fd_ = -1;
  bool stopping_ = false;
  Instant kill_at_ = Instant::Never();  // end of the present phase's grace
};

}  // namespace tandem::ctl
