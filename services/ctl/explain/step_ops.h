#pragma once

// Calls of a step as operations: of each its shape, bytes, flops, and its part of the time that the
// cost model gives the call. Pure.

#include <absl/types/span.h>

#include <vector>

#include "scheduler/cost/ops.h"
#include "services/ctl/explain/report.h"
#include "services/ctl/explain/worker_model.h"

namespace tandem::ctl {

// One call of one micro-batch.
struct ModelledCall {
  std::vector<cost::Op> ops;
  cost::CallParts parts;   // of the call; meaningless without a table
  double model_share = 1;  // of the call's time that counts: 0 where another piece takes longer
};

// The calls of all micro-batches, which list the same operations, added up. The model's time of a
// call is divided among its operations as their own bytes and flops would take it; t0 and the
// all-reduce are operations of their own behind them.
//   weight_scale  bytes of weights as loaded over those of `ops`
std::vector<ExplainedOp> ExplainCalls(const WorkerModel& worker,
                                      absl::Span<const ModelledCall> calls, double weight_scale);

// Hidden states on their way between two workers; rows by call.
ExplainedOp ExplainA2f(const WorkerModel& attention, const WorkerModel& ffn, uint32_t layer,
                       absl::Span<const uint32_t> rows, uint32_t pieces);
ExplainedOp ExplainF2a(const WorkerModel& attention, const WorkerModel& ffn,
                       absl::Span<const uint32_t> rows, uint32_t pieces);

}  // namespace tandem::ctl
