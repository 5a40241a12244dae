#pragma once

// A closed loop of clients before a colocated engine, in virtual time: what such benchmarks measure
// as TTFT is mostly waiting for others' prompts and for KV, which no formula of one prompt gives.
//
// Every client sends its next request when its last one ends; all send their first at time zero.
// The engine steps as chunked-prefill engines do: waiting requests are admitted in order while
// their KV fits, a step computes one token of each running sequence and the prompts' next rows up
// to the engine's `step_tokens`, and a prompt's first token comes out of the step that ends it.
// Pure: equal arguments give equal reports on every machine.

#include <absl/status/statusor.h>

#include <cstdint>

#include "scheduler/base/time.h"
#include "scheduler/cost/colocated.h"
#include "scheduler/cost/cost_table.h"

namespace tandem::planner {

inline constexpr uint64_t kMaxClosedLoopRequests = 1'000'000;

struct ClosedLoopLoad {
  uint64_t clients = 1;
  uint64_t requests = 1;       // of all clients together
  cost::RequestShape request;  // the longest; prompt and output at least 1
  double shortest = 1;         // lengths are uniform in [shortest, 1] of those; (0, 1]
  uint64_t max_sequences = 0;  // that run at once; 0: as many as fit
  uint64_t seed = 1;           // of the lengths
};

struct ClosedLoopReport {
  Duration ttft_mean, ttft_median;
  Duration tpot_mean;  // of each request's own mean after its first token
  double output_tokens_per_s = 0;
  double running_mean = 0;    // sequences that a step decodes, over time
  uint64_t waiting_most = 0;  // requests that waited for admission at once
};

// kInvalidArgument: a load out of range; kFailedPrecondition: one request alone does not fit.
absl::StatusOr<ClosedLoopReport> SimulateClosedLoop(const cost::CostTable& table,
                                                    const ClosedLoopLoad& load);

}  // namespace tandem::planner
