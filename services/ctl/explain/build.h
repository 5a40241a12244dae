#pragma once

// An ExplainReport out of what the cluster said. Pure.

#include <absl/status/statusor.h>

#include <string>
#include <vector>

#include "scheduler/model/catalog.h"
#include "services/ctl/explain/answer.h"
#include "services/ctl/explain/report.h"
#include "services/ctl/trace/worker_trace.h"
#include "tandem/v1/registry.pb.h"

namespace tandem::ctl {

struct ExplainInput {
  ExplainQuestion question;
  ExplainAnswer answer;
  // Of the workers that run attention or FFN, in one order.
  std::vector<v1::Registration> workers;
  std::vector<WorkerTrace> traces;
};

// `chip`: see ModelOf. kNotFound and kDataLoss: the step is not, or not wholly, in the traces;
// kInternal: the step in the trace is of another sequence; else as ModelOf.
absl::StatusOr<ExplainReport> MakeExplainReport(const ExplainInput& input,
                                                const model::Catalog& catalog,
                                                const std::string& chip);

}  // namespace tandem::ctl
