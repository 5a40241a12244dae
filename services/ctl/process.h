#pragma once

// Operating-system processes: start, name beyond doubt, signal, wait. Linux only (pidfd, /proc,
// PR_SET_PDEATHSIG).

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/base/time.h"

namespace tandem::ctl {

// A process: its pid, and its start time (clock ticks since boot, /proc/PID/stat field 22), which
// tells it from a later one with the same pid.
struct ProcessRef {
  pid_t pid = 0;
  uint64_t start_ticks = 0;
  bool operator==(const ProcessRef&) const = default;
};

// nullopt: no such process, or a zombie.
std::optional<ProcessRef> FindProcess(pid_t pid);
bool IsAlive(const ProcessRef& process);

// Sends `signal` to that very process, never to another that got its pid. False: it is gone.
bool SignalProcess(const ProcessRef& process, int signal);

// Waits until it has ended, child or not. False: `timeout` passed.
bool WaitUntilGone(const ProcessRef& process, Duration timeout);

struct SpawnOptions {
  std::vector<std::string> argv;  // argv[0] is the path of the program
  int output_fd = -1;             // stdout and stderr; -1: this process's
  bool null_input = true;         // stdin from /dev/null
  bool new_session = false;  // setsid: outlives the terminal; otherwise a process group of its own
  int signal_on_parent_death = 0;  // PR_SET_PDEATHSIG: sent when the thread that called Spawn ends
  std::vector<int> inherit_fds = {};  // further descriptors that stay open under their numbers
};

// Starts a program with an empty signal mask. kNotFound, kPermissionDenied, ...: it could not be
// executed, with the path.
absl::StatusOr<ProcessRef> Spawn(const SpawnOptions& options);

// "exit code 1", "signal 9 (Killed)": of a status from waitpid.
std::string DescribeExit(int wait_status);

// The path of this program's own file.
std::string OwnExecutable();

}  // namespace tandem::ctl
