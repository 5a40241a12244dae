#include "services/ctl/supervisor.h"

#include <absl/strings/str_cat.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <optional>
#include <utility>

#include "scheduler/base/status.h"
#include "services/ctl/backoff.h"
#include "services/ctl/log_file.h"
#include "services/runtime/log.h"

namespace tandem::ctl {

struct Supervisor::Daemon {
  DaemonState* state = nullptr;  // its entry in state_
  std::optional<LogFile> log;
  Backoff backoff;
  int output_fd = -1;  // read end of its stdout and stderr; -1: none
  Instant started;
  Instant start_at = Instant::Never();  // when to start it again
};

Supervisor::Supervisor(ClusterState state, StateDir dir, TimeSource& time,
                       SupervisorOptions options)
    : state_(std::move(state)), dir_(std::move(dir)), time_(time), options_(std::move(options)) {
  for (DaemonState& daemon : state_.daemons) {
    daemons_.push_back(std::make_unique<Daemon>());
    daemons_.back()->state = &daemon;
  }
}

Supervisor::~Supervisor() {
  for (const auto& daemon : daemons_) {
    if (daemon->output_fd >= 0) close(daemon->output_fd);
  }
  if (signal_fd_ >= 0) close(signal_fd_);
}

namespace {

sigset_t WatchedSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGCHLD, SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, signal);
  return signals;
}

}  // namespace

void Supervisor::BlockSignals() {
  const sigset_t signals = WatchedSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
}

absl::Status Supervisor::WatchSignals() {
  BlockSignals();
  const sigset_t signals = WatchedSignals();
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  if (signal_fd_ < 0) return absl::ErrnoToStatus(errno, "signalfd");
  // What a daemon leaves behind becomes our child, and is reaped.
  if (prctl(PR_SET_CHILD_SUBREAPER, 1) != 0)
    return absl::ErrnoToStatus(errno, "PR_SET_CHILD_SUBREAPER");
  return absl::OkStatus();
}

absl::Status Supervisor::Run() {
  RETURN_IF_ERROR(WatchSignals());
  for (const auto& daemon : daemons_) {
    ASSIGN_OR_RETURN(LogFile log, LogFile::Open(daemon->state->log));
    daemon->log.emplace(std::move(log));
  }
  state_.supervisor = FindProcess(getpid()).value_or(ProcessRef{.pid = getpid(), .start_ticks = 0});
  state_.since = options_.unix_seconds();
  for (const auto& daemon : daemons_) Start(*daemon);
  RETURN_IF_ERROR(dir_.Save(state_));

  while (!stopping_ || !AllStopped()) {
    std::vector<pollfd> events{{.fd = signal_fd_, .events = POLLIN, .revents = 0}};
    for (const auto& daemon : daemons_)
      events.push_back({.fd = daemon->output_fd, .events = POLLIN, .revents = 0});
    if (poll(events.data(), events.size(), PollTimeoutMs()) < 0 && errno != EINTR) {
      return absl::ErrnoToStatus(errno, "poll");
    }
    for (size_t i = 0; i < daemons_.size(); ++i) {
      if (events[i + 1].revents != 0) ReadOutput(*daemons_[i]);
    }
    if (events[0].revents != 0) ReadSignals();
    if (stopping_) {
      AdvanceStop();
    } else {
      StartDue();
    }
  }
  LogInfo("stopped");
  return absl::OkStatus();
}

void Supervisor::Start(Daemon& daemon) {
  DaemonState& state = *daemon.state;
  daemon.start_at = Instant::Never();
  daemon.started = time_.Now();
  int output[2];
  if (pipe2(output, O_CLOEXEC) != 0) {
    LogError("pipe_failed", {{"daemon_name", state.name}});
    daemon.start_at = time_.Now() + daemon.backoff.Next({});
    state.state = "backoff";
    return;
  }
  fcntl(output[0], F_SETFL, O_NONBLOCK);
  const absl::StatusOr<ProcessRef> process =
      Spawn({.argv = state.argv, .output_fd = output[1], .signal_on_parent_death = SIGKILL});
  close(output[1]);
  if (daemon.output_fd >= 0) close(daemon.output_fd);
  daemon.output_fd = output[0];
  if (!process.ok()) {
    LogError("start_failed",
             {{"daemon_name", state.name}, {"error", std::string(process.status().message())}});
    daemon.log->Write(absl::StrCat("supervisor: ", process.status().message(), "\n"));
    state.last_exit = std::string(process.status().message());
    state.state = "backoff";
    state.process = {};
    daemon.start_at = time_.Now() + daemon.backoff.Next({});
    return;
  }
  state.process = *process;
  state.started_at = options_.unix_seconds();
  state.state = "running";
  LogInfo("started", {{"daemon_name", state.name},
                      {"pid", static_cast<int64_t>(process->pid)},
                      {"restarts", state.restarts}});
}

void Supervisor::ReadOutput(Daemon& daemon) {
  char buffer[16 << 10];
  // A bounded number of reads a turn: a daemon that never stops writing cannot keep us from the
  // others.
  for (int reads = 0; daemon.output_fd >= 0 && reads < 16; ++reads) {
    const ssize_t got = read(daemon.output_fd, buffer, sizeof buffer);
    if (got > 0) {
      daemon.log->Write(absl::string_view(buffer, static_cast<size_t>(got)));
    } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
      close(daemon.output_fd);
      daemon.output_fd = -1;
    } else if (errno == EAGAIN) {
      return;
    }
  }
}

void Supervisor::ReadSignals() {
  signalfd_siginfo info{};
  while (read(signal_fd_, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGCHLD) continue;  // several may have become one: Reap asks for all
    LogInfo("stop_signal", {{"signal", static_cast<int64_t>(info.ssi_signo)}});
    if (stopping_) KillAll();
    stopping_ = true;
    for (const auto& daemon : daemons_) daemon->start_at = Instant::Never();
  }
  Reap();
}

void Supervisor::Reap() {
  for (;;) {
    siginfo_t info{};
    // Looks first and reaps after, so that nobody else can have the pid while its group is told.
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) != 0 || info.si_pid == 0) return;
    const auto ended = std::find_if(daemons_.begin(), daemons_.end(), [&](const auto& daemon) {
      return daemon->state->process.pid == info.si_pid;
    });
    if (ended != daemons_.end()) kill(-info.si_pid, SIGKILL);  // what it started itself
    int wait_status = 0;
    waitpid(info.si_pid, &wait_status, 0);
    if (ended != daemons_.end()) OnExit(**ended, wait_status);
  }
}

void Supervisor::OnExit(Daemon& daemon, int wait_status) {
  DaemonState& state = *daemon.state;
  ReadOutput(daemon);  // its last words
  state.last_exit = DescribeExit(wait_status);
  state.process = {};
  if (stopping_) {
    state.state = "stopped";
    LogInfo("ended", {{"daemon_name", state.name}, {"exit", state.last_exit}});
  } else {
    const Duration wait = daemon.backoff.Next(time_.Now() - daemon.started);
    daemon.start_at = time_.Now() + wait;
    state.state = "backoff";
    LogWarn("died", {{"daemon_name", state.name},
                     {"exit", state.last_exit},
                     {"restart_in_seconds", wait.seconds()}});
    daemon.log->Write(absl::StrCat("supervisor: ", state.name, " ended with ", state.last_exit,
                                   ", starts again in ", wait.seconds(), " s\n"));
  }
  Save();
}

void Supervisor::StartDue() {
  bool changed = false;
  for (const auto& daemon : daemons_) {
    if (daemon->start_at > time_.Now()) continue;
    ++daemon->state->restarts;
    Start(*daemon);
    changed = true;
  }
  if (changed) Save();
}

// Gateways first, the rest once they are gone; then SIGKILL for what outlived its grace.
void Supervisor::AdvanceStop() {
  const bool gateways_gone = std::all_of(daemons_.begin(), daemons_.end(), [](const auto& daemon) {
    return daemon->state->kind != "gateway" || daemon->state->process.pid == 0;
  });
  bool asked = false;
  for (const auto& daemon : daemons_) {
    if (daemon->state->kind != "gateway" && !gateways_gone) continue;
    if (daemon->state->state == "stopping" || daemon->state->state == "stopped") continue;
    Terminate(*daemon);
    asked = true;
  }
  if (asked) {
    kill_at_ = time_.Now() + options_.grace;
    Save();
  } else if (time_.Now() >= kill_at_) {
    kill_at_ = Instant::Never();
    for (const auto& daemon : daemons_) {
      if (daemon->state->state != "stopping") continue;
      LogWarn("killed_after_grace",
              {{"daemon_name", daemon->state->name}, {"grace_seconds", options_.grace.seconds()}});
      kill(daemon->state->process.pid, SIGKILL);
    }
  }
}

void Supervisor::Terminate(Daemon& daemon) {
  daemon.start_at = Instant::Never();
  if (daemon.state->process.pid == 0) {
    daemon.state->state = "stopped";
    return;
  }
  daemon.state->state = "stopping";
  LogInfo("stopping", {{"daemon_name", daemon.state->name}});
  kill(daemon.state->process.pid, SIGTERM);  // our own child, not reaped yet: the pid is its
}

void Supervisor::KillAll() {
  for (const auto& daemon : daemons_) {
    if (daemon->state->process.pid != 0) kill(daemon->state->process.pid, SIGKILL);
  }
}

bool Supervisor::AllStopped() const {
  return std::all_of(daemons_.begin(), daemons_.end(),
                     [](const auto& daemon) { return daemon->state->state == "stopped"; });
}

int Supervisor::PollTimeoutMs() const {
  Instant next = stopping_ ? kill_at_ : Instant::Never();
  for (const auto& daemon : daemons_) next = std::min(next, daemon->start_at);
  if (next == Instant::Never()) return -1;
  const int64_t ns = std::max<int64_t>((next - time_.Now()).nanoseconds(), 0);
  return static_cast<int>(std::min<int64_t>(ns / 1'000'000 + 1, INT_MAX));
}

void Supervisor::Save() {
  if (const absl::Status saved = dir_.Save(state_); !saved.ok()) {
    LogError("state_not_saved", {{"error", std::string(saved.message())}});
  }
}

}  // namespace tandem::ctl
