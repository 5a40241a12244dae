#pragma once

// What `tandemctl fit` answers: how well each stage of a model fits some devices.

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/cost/stage_fit.h"
#include "scheduler/model/catalog.h"

namespace tandem::ctl {

// As a command line has it.
struct FitRequest {
  std::string model;
  std::vector<std::string> devices;  // names, or short forms; at least one
  std::string weights;               // a dtype for all; empty: UsualWeights of each
  cost::FitLoad load;                // prompt_tokens 0: as context_tokens
  std::vector<std::string> what_ifs;
};

struct FitReport {
  model::ModelShape shape;
  cost::FitLoad load;
  std::vector<std::string> what_ifs;
  std::vector<cost::DeviceFit> fits;  // in the order asked for, with their verdicts
};

// Pure. kNotFound, kInvalidArgument: a name that is none or several, or stands twice; a dtype; a
// load; what a device has no figure for; a what-if. Messages name it.
absl::StatusOr<FitReport> MakeFitReport(const model::Catalog& catalog, const FitRequest& request);

// Lines of at most kTerminalColumns but for long names; the last one without a line break. `ops`
// adds every operation of a prompt and a step, for each dtype that is compared.
std::string FitText(const FitReport& report, bool ops);
// Everything, operations included.
std::string FitJson(const FitReport& report);

}  // namespace tandem::ctl
