#pragma once

// tandem-worker put together: backend, engine, streams, metrics and health, from start to drained.

#include <absl/status/status.h>

#include "workers/daemon/config.h"

namespace tandem {

// Loads the shard, serves until SIGTERM or SIGINT, drains and returns. An error before serving
// names what is wrong: the file, tensor and number, or the address.
absl::Status RunWorker(const WorkerConfig& config);

}  // namespace tandem
