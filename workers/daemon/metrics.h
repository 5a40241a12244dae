#pragma once

// What a worker exports, read from its engine when Prometheus scrapes.

#include <prometheus/labels.h>
#include <prometheus/registry.h>

#include <functional>
#include <memory>

#include "scheduler/base/time.h"
#include "workers/backend/stage_backend.h"
#include "workers/connector/ports.h"

namespace tandem {

// Counters of the worker's streams, next to the engine's report.
struct StreamCounts {
  uint64_t kv_frames_malformed = 0;
  uint64_t handoff_replies_mismatched = 0;
  uint64_t handoff_calls_malformed = 0;
  uint64_t registry_reconnects = 0;
};

// What every series of a worker carries.
prometheus::Labels WorkerLabels(const WorkerDescription& worker);

// A registry that brings its values up to date before each collection. The device's elapsed seconds
// are `time`'s since `opened`, WorkerCore::opened: the ledger is not asked for its own, so that the
// sum of its states can be checked against them. `line`: of an emulated device, whose seconds are
// scaled; null otherwise.
std::shared_ptr<prometheus::Registry> MakeWorkerMetrics(const WorkerDescription& worker,
                                                        const BackendInfo& backend,
                                                        TimeSource& time, Instant opened,
                                                        const DeviceTimeline* line,
                                                        std::function<WorkerReport()> report,
                                                        std::function<StreamCounts()> streams);

}  // namespace tandem
