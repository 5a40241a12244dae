#pragma once

// What to think of a stage on a device: weak, mixed, strong or best, each by a rule that is told
// with its numbers. README.md has the table of rules.

#include <vector>

#include "scheduler/cost/stage_fit.h"

namespace tandem::cost {

// Weights that alone need more devices make a stage weak.
inline constexpr uint64_t kMostDevicesForWeights = 16;
// An HBM device whose FFN computes for a smaller share of the time that it reads is weak at it.
inline constexpr double kLeastComputeShare = 0.1;

// Fills in every verdict of `fits`, which are of one model and load. `best` compares them: the
// lowest dollars per token of a stage, among two or more whose price is known and that are not
// weak.
void Judge(const FitLoad& load, std::vector<DeviceFit>& fits);

}  // namespace tandem::cost
