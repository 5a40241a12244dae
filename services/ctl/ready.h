#pragma once

#include <absl/status/status.h>

#include <cstdio>

#include "scheduler/base/time.h"
#include "services/ctl/state.h"
#include "services/ctl/stop_signals.h"

namespace tandem::ctl {

// Waits until the gateway's /readyz says 200 and the router counts every worker as ready; prints to
// `out` what is still missing when that changes, and the end of a daemon's log when it dies.
//
// kFailedPrecondition: a daemon keeps dying, or the supervisor ended; kDeadlineExceeded: not ready
// within `limit`, with what was missing; kCancelled: a stop signal. Stopping the cluster is the
// caller's.
absl::Status WaitUntilReady(const StateDir& dir, const ProcessRef& supervisor, StopSignals& signals,
                            TimeSource& time, Duration limit, std::FILE* out);

}  // namespace tandem::ctl
