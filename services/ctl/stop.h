#pragma once

#include <absl/status/status.h>

#include "services/ctl/state.h"

namespace tandem::ctl {

// Stops the cluster of a folder: the supervisor, which stops its daemons, and whatever of them is
// left; nothing else, because each is known by pid and start time. Returns when all are gone. OK
// when there was none; `stopped` then is false. kUnavailable: it is being started this moment.
absl::Status StopCluster(const StateDir& dir, bool& stopped);

}  // namespace tandem::ctl
