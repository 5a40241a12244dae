#pragma once

// What every daemon does around its work: wait for a signal, answer /livez, /readyz and /metrics.

#include <absl/status/statusor.h>
#include <prometheus/registry.h>

#include <functional>
#include <memory>
#include <string>

namespace tandem {

// Blocks SIGTERM and SIGINT in this thread and those it starts later: call first in main.
void BlockStopSignals();
// Waits for one of them; returns its number. A second one during the drain ends the process at once.
int WaitForStopSignal();

// Serves GET /metrics at `listen` (prometheus-cpp's exposer). The result stops it when destroyed.
absl::StatusOr<std::shared_ptr<void>> ServeMetrics(const std::string& listen,
                                                   const std::shared_ptr<prometheus::Registry>& registry);

// Serves GET /livez (200 "ok") and /readyz (200 "ok", or 503 with the reason) at `listen`. `not_ready_reason` returns an
// empty string when ready; it is called from the server's thread.
absl::StatusOr<std::shared_ptr<void>> ServeHealth(const std::string& listen,
                                                  std::function<std::string()> not_ready_reason);

}  // namespace tandem
