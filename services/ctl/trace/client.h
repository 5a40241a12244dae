#pragma once

#include <absl/status/statusor.h>

#include <string>

#include "services/ctl/trace/worker_trace.h"

namespace tandem::ctl {

// Watches the worker at `address` for so many seconds of its machine, and returns then; a worker
// that takes 10 s longer is given up. Errors name the worker: kUnavailable: nobody answers;
// kResourceExhausted: it has as many readers as it takes; kInvalidArgument: what it said is no
// trace.
absl::StatusOr<WorkerTrace> ReadTrace(const std::string& worker, const std::string& address,
                                      double seconds);

}  // namespace tandem::ctl
