#pragma once

// Runs a baseline that was forecast: one emulated device of its kind serves the load alone, by our
// own engine.

#include <absl/status/statusor.h>

#include <string>

#include "services/ctl/cost_report.h"

namespace tandem::ctl {

// Starts a colocated cluster of `report.baseline`'s device in a folder of its own, plays its batch
// as closed-loop clients with the load's mean request, asks the router what the device did, and
// stops the cluster. Tells its progress on stderr. `catalog`: folder of further chips and
// devices, or empty. kResourceExhausted: more clients than this program plays; kCancelled: a stop
// signal.
absl::StatusOr<MeasuredBaseline> MeasureBaseline(const CostReport& report,
                                                 const std::string& catalog);

}  // namespace tandem::ctl
