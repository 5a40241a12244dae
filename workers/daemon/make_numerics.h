#pragma once

// The numbers that an emulated worker computes with: a hash chain, or a real model.

#include <absl/status/statusor.h>

#include <memory>

#include "scheduler/cost/cost_table.h"
#include "workers/backend/stage_backend.h"
#include "workers/daemon/config.h"

namespace tandem {

// For the layers of `table`'s model. `shard`, of its FFN, is resolved; `kv_blocks` is 0 for an FFN
// worker. kInvalidArgument: a real model of more layers, with both numbers; a tokenizer's file
// (config.model) of another vocabulary. Else what GgufModel::Open and GgmlBackend::Create say.
absl::StatusOr<std::unique_ptr<StageBackend>> MakeNumerics(const WorkerConfig& config,
                                                           const cost::CostTable& table,
                                                           const FfnShard& shard,
                                                           uint32_t kv_blocks);

}  // namespace tandem
