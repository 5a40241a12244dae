#pragma once

// The backend that a configuration asks for.

#include <absl/status/statusor.h>

#include <memory>

#include "scheduler/ledger/price.h"
#include "services/runtime/real_time.h"
#include "workers/backend/stage_backend.h"
#include "workers/daemon/config.h"

namespace tandem {

struct BuiltBackend {
  std::unique_ptr<StageBackend> backend;
  uint32_t kv_blocks = 0;  // that it has room for
  ledger::Price price{};   // of an emulated device, by the catalog; else unknown
};

// Loads the shard, or makes the emulated device. Errors name the file, key and number. `time`
// outlives the backend.
absl::StatusOr<BuiltBackend> MakeBackend(const WorkerConfig& config, const RealTimeSource& time);

}  // namespace tandem
