#include "services/runtime/daemon.h"

#include <absl/strings/str_cat.h>
#include <prometheus/exposer.h>
#include <pthread.h>

#include <csignal>
#include <exception>

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

// One thread serves scrapes: they are rare, and two at once need not be quick.
struct MetricsServer final : ListeningServer {
  explicit MetricsServer(const std::string& listen) : exposer(listen, /*num_threads=*/1) {
    const std::vector<int> ports = exposer.GetListeningPorts();
    if (!ports.empty()) port = ports.front();
  }
  prometheus::Exposer exposer;
};

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
  TANDEM_CHECK(pthread_sigmask(SIG_UNBLOCK, &signals, nullptr) == 0);  // the second one does what the system does
  return signal;
}

absl::StatusOr<std::shared_ptr<ListeningServer>> ServeMetrics(const std::string& listen,
                                                              const std::shared_ptr<prometheus::Registry>& registry) {
  try {
    auto server = std::make_shared<MetricsServer>(listen);
    server->exposer.RegisterCollectable(registry);
    return std::shared_ptr<ListeningServer>(std::move(server));
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("metrics cannot listen on ", listen, ": ", error.what()));
  }
}

}  // namespace tandem
