#pragma once

// What the cost model knows of a worker: its model's shape, its weights' format, its chip. Pure.

#include <absl/status/statusor.h>

#include <optional>
#include <string>

#include "scheduler/cost/cost_table.h"
#include "scheduler/model/catalog.h"
#include "services/ctl/explain/report.h"
#include "tandem/v1/registry.pb.h"

namespace tandem::ctl {

struct WorkerModel {
  ExplainedWorker words;
  model::ModelShape shape;
  std::string shape_source;
  model::Precision precision;
  // Bytes of weights as loaded over those in `precision`, by what they are for; 1 of emulated ones.
  double attention_scale = 1, ffn_scale = 1, head_scale = 1;
  std::optional<cost::CostTable> table;
};

// `chip`: the catalog's device to forecast with, instead of the worker's own; empty: its own.
// kInvalidArgument: what the worker registered is no model; an unknown chip, or one without
// figures for the weights.
absl::StatusOr<WorkerModel> ModelOf(const v1::Registration& worker, const model::Catalog& catalog,
                                    const std::string& chip);

}  // namespace tandem::ctl
