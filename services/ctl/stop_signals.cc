#include "services/ctl/stop_signals.h"

#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <unistd.h>

extern "C" {  // glibc 2.36 forgets it
#include <sys/pidfd.h>
}

#include <cerrno>

#include "scheduler/base/check.h"

namespace tandem::ctl {
namespace {

sigset_t Signals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (int signal : {SIGINT, SIGTERM, SIGHUP}) sigaddset(&signals, signal);
  return signals;
}

}  // namespace

StopSignals::StopSignals() {
  const sigset_t signals = Signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  TANDEM_CHECK(fd_ >= 0);
}

StopSignals::~StopSignals() {
  close(fd_);
  const sigset_t signals = Signals();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

StopSignals::Woken StopSignals::Wait(const ProcessRef& process, Duration timeout) {
  const int process_fd = pidfd_open(process.pid, 0);
  if (process_fd < 0 || !IsAlive(process)) {
    if (process_fd >= 0) close(process_fd);
    return Woken::kProcessGone;
  }
  pollfd events[2] = {{.fd = fd_, .events = POLLIN, .revents = 0},
                      {.fd = process_fd, .events = POLLIN, .revents = 0}};
  int ready = 0;
  do {
    ready = poll(events, 2, static_cast<int>(timeout.nanoseconds() / 1'000'000));
  } while (ready < 0 && errno == EINTR);
  close(process_fd);
  signalfd_siginfo info{};
  if (events[0].revents != 0 && read(fd_, &info, sizeof info) == sizeof info) return Woken::kSignal;
  return events[1].revents != 0 ? Woken::kProcessGone : Woken::kTimeout;
}

}  // namespace tandem::ctl
