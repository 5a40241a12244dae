#pragma once

// A colocated engine under load: what a decode step costs when prompts arrive among it, and how
// many sequences it can hold. Source of the form: facts/cost-fit.md.

#include <cstdint>

#include "scheduler/base/time.h"
#include "scheduler/cost/cost_table.h"

namespace tandem::cost {

// The requests of a load, all alike.
struct RequestShape {
  uint64_t prompt_tokens = 0;
  uint64_t output_tokens = 0;
};

// Sequences of this shape whose KV fits beside the weights, at the mean of what they hold while
// they are decoded; 0: not one.
uint64_t BatchThatFits(const CostTable& table, const RequestShape& request);

// Mean time per output token at `batch` running sequences: a decode step at the mean context, and
// the share of arriving prompts' prefill that the engine makes the batch wait.
Duration TimePerOutputToken(const CostTable& table, uint64_t batch, const RequestShape& request);

}  // namespace tandem::cost
