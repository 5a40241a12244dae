#pragma once

// Starting a local cluster: its supervisor, its processes, and for emulated devices the time scale
// that the host can keep.

#include <absl/status/statusor.h>

#include <cstdio>
#include <string>

#include "scheduler/base/time.h"
#include "services/ctl/state.h"
#include "services/ctl/stop_signals.h"

namespace tandem::ctl {

struct StartOptions {
  std::string bin_dir = {};  // of the daemons' programs; empty: this program's own folder
  Duration ready = Duration::Seconds(180);  // within which it must be ready
  bool attached = false;                    // it stops when this process ends
  std::FILE* progress = stdout;
};

// Starts `config` in `dir`, whose lock goes to the supervisor, and waits until it is ready; tells
// what it does. Emulated with time_scale auto: at ever larger scales until the host keeps up. After
// an error the caller stops what was started (StopCluster).
absl::StatusOr<ProcessRef> StartCluster(const ClusterConfig& config, const StateDir& dir, int lock,
                                        const StartOptions& options, TimeSource& time,
                                        StopSignals& signals);

// TANDEM_MODEL, else where ./dev puts SmolLM2.
std::string DefaultModel();

}  // namespace tandem::ctl
