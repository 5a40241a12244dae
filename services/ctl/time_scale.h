#pragma once

// Which time scale an emulated cluster needs on this machine: the smallest at which the host keeps
// up with the devices.

#include <absl/status/statusor.h>

#include "services/ctl/state.h"

namespace tandem::ctl {

// A host that falls behind by more than this share needs a larger scale.
inline constexpr double kMostLag = 0.02;

// Sends the cluster some requests at once and asks every worker how much of its devices' time the
// host lost meanwhile; the worst worker's share. kUnavailable when it cannot be asked.
absl::StatusOr<double> MeasureLag(const ClusterState& state);

// The scale to try after `scale`, at which the host fell behind by the share `lag`.
double NextTimeScale(double scale, double lag);

// The lag ratio in a worker's metrics page; 0 when there is none.
double LagRatioOf(absl::string_view metrics);

}  // namespace tandem::ctl
