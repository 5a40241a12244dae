#include "services/runtime/daemon.h"

#include <pthread.h>

#include <csignal>

#include "scheduler/base/check.h"

namespace tandem {
namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  return signals;
}

}  // namespace

void BlockStopSignals() {
  std::signal(SIGPIPE, SIG_IGN);
  const sigset_t signals = StopSignals();
  TANDEM_CHECK(pthread_sigmask(SIG_BLOCK, &signals, nullptr) == 0);
}

int WaitForStopSignal() {
  const sigset_t signals = StopSignals();
  int signal = 0;
  TANDEM_CHECK(sigwait(&signals, &signal) == 0);
  TANDEM_CHECK(pthread_sigmask(SIG_UNBLOCK, &signals, nullptr) ==
               0);  // the second one does what the system does
  return signal;
}

}  // namespace tandem
