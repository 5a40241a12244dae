#include "scheduler/cost/stage_fit.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cmath>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"

namespace tandem::cost {
namespace {

using model::Device;
using model::Dtype;
using model::ModelShape;
using model::Precision;

absl::Status InRange(const char* what, uint64_t value, uint64_t max, absl::string_view of) {
  if (value >= 1 && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(what, ": ", value, " is not in [1, ", max, "]", of));
}

CallParts& operator+=(CallParts& sum, const CallParts& parts) {
  sum.memory += parts.memory;
  sum.compute += parts.compute;
  sum.fixed += parts.fixed;
  sum.all_reduce_latency += parts.all_reduce_latency;
  sum.all_reduce_bytes += parts.all_reduce_bytes;
  return sum;
}

Holding HoldingOf(Stage stage) {
  switch (stage) {
    case Stage::kPrefill:
      return {true, false, std::nullopt};
    case Stage::kAttention:
      return {false, true, std::nullopt};
    case Stage::kFfn:
      return {false, false, FfnShard()};
  }
  TANDEM_CHECK(false);
}

uint64_t DevicesFor(double bytes, double device_bytes) {
  return static_cast<uint64_t>(std::max(1.0, std::ceil(bytes / device_bytes)));
}

void FitMemory(const CostTable& table, const FitLoad& load, StageFit& fit) {
  const ModelShape& shape = table.shape();
  const Device& device = table.device();
  fit.weight_bytes =
      static_cast<double>(WeightBytes(shape, table.precision(), HoldingOf(fit.stage)));
  if (fit.stage != Stage::kFfn) {
    const bool prompt = fit.stage == Stage::kPrefill;
    fit.kv_copies = KvCopies(shape, device);
    const uint64_t tokens = prompt ? load.prompt_tokens : load.context_tokens;
    fit.kv_bytes = static_cast<double>(KvBytes(shape, table.precision(), tokens)) * fit.kv_copies *
                   static_cast<double>(prompt ? 1 : load.batch);
  }
  fit.device_bytes = device.memory_bytes() - device.workspace_bytes();
  fit.devices_for_weights = DevicesFor(fit.weight_bytes, fit.device_bytes);
  fit.devices = DevicesFor(fit.weight_bytes + fit.kv_bytes, fit.device_bytes);
}

void AddCall(const CostTable& table, const CallParts& parts, StageFit& fit) {
  fit.parts += parts;
  fit.time += table.TimeOf(parts);
}

void FitPrefillTime(const CostTable& table, const FitLoad& load, StageFit& fit) {
  const ModelShape& shape = table.shape();
  fit.rows = load.prompt_tokens;
  AddCall(table, table.EmbedParts(fit.rows), fit);
  for (uint64_t layer = 0; layer < shape.layers; layer++)
    AddCall(table, table.PrefillParts(layer, PrefillRows::Of(table.shape(), 0, fit.rows)), fit);
  fit.link_time = table.link().Occupancy(KvBytes(shape, table.precision(), fit.rows));
}

void FitDecodeTime(const CostTable& table, const FitLoad& load, StageFit& fit) {
  const ModelShape& shape = table.shape();
  const bool attention = fit.stage == Stage::kAttention;
  fit.rows = attention ? (load.batch + fit.devices - 1) / fit.devices : load.batch;
  const AttentionRows rows = AttentionRows::Even(shape, fit.rows, fit.rows * load.context_tokens);
  if (attention) {
    AddCall(table, table.EmbedParts(fit.rows), fit);
    AddCall(table, table.HeadParts(fit.rows), fit);
  }
  for (uint64_t layer = 0; layer < shape.layers; layer++) {
    AddCall(
        table,
        attention ? table.AttentionParts(layer, rows) : table.FfnParts(FfnShard(), layer, fit.rows),
        fit);
    // Links carry both directions at once.
    fit.link_time +=
        table.link().Occupancy(std::max(A2fBytes(shape, table.precision(), layer, fit.rows),
                                        F2aBytes(shape, table.precision(), fit.rows)));
  }
}

// Flops over those of one row and each weight read. Experts are in the FFN alone; a prompt's rows
// are so many that its experts' share does not matter.
double RowsPerWeight(const CostTable& table, const StageFit& fit) {
  if (fit.stage != Stage::kFfn) return static_cast<double>(fit.rows);
  Work work;
  for (uint64_t layer = 0; layer < table.shape().layers; layer++)
    work += FfnWork(table.shape(), table.precision(), FfnShard(), layer, fit.rows);
  const double weight_bytes = model::BitsPerWeight(table.precision().weights) / 8;
  return work.flops / (2 * work.weight_bytes / weight_bytes);
}

Bound BoundOf(const StageFit& fit) {
  if (fit.link_time > fit.time) return Bound::kLink;
  const std::array<std::pair<double, Bound>, 4> parts = {{{fit.parts.memory, Bound::kMemory},
                                                          {fit.parts.compute, Bound::kCompute},
                                                          {fit.parts.fixed, Bound::kFixed},
                                                          {fit.all_reduce(), Bound::kAllReduce}}};
  return std::max_element(parts.begin(), parts.end(),
                          [](const auto& a, const auto& b) { return a.first < b.first; })
      ->second;
}

StageFit FitStage(const CostTable& table, const FitLoad& load, Stage stage) {
  StageFit fit;
  fit.stage = stage;
  FitMemory(table, load, fit);
  if (stage == Stage::kPrefill) {
    FitPrefillTime(table, load, fit);
  } else {
    FitDecodeTime(table, load, fit);
  }
  fit.rows_per_weight = RowsPerWeight(table, fit);
  fit.bound = BoundOf(fit);
  // More devices than sequences: some hold a part of one, and wait for the others.
  const double tokens = stage == Stage::kAttention
                            ? static_cast<double>(load.batch) / static_cast<double>(fit.devices)
                            : static_cast<double>(fit.rows);
  fit.tokens_per_s = tokens / std::max(fit.time, fit.link_time).seconds();
  if (const std::optional<double> dollars = table.dollars_per_second(); dollars.has_value())
    fit.dollars_per_mtok = *dollars * 1e6 / fit.tokens_per_s;
  return fit;
}

}  // namespace

absl::string_view BoundName(Bound bound) {
  switch (bound) {
    case Bound::kMemory:
      return "memory";
    case Bound::kCompute:
      return "compute";
    case Bound::kFixed:
      return "fixed time";
    case Bound::kAllReduce:
      return "all-reduce";
    case Bound::kLink:
      return "link";
  }
  TANDEM_CHECK(false);
}

absl::string_view GradeName(Grade grade) {
  switch (grade) {
    case Grade::kWeak:
      return "weak";
    case Grade::kMixed:
      return "mixed";
    case Grade::kStrong:
      return "strong";
    case Grade::kBest:
      return "best";
  }
  TANDEM_CHECK(false);
}

absl::Status CheckLoad(const ModelShape& shape, const FitLoad& load) {
  const std::string of = absl::StrCat(", the context of '", shape.name, "'");
  RETURN_IF_ERROR(InRange("batch", load.batch, kMaxFitBatch, ""));
  RETURN_IF_ERROR(InRange("context", load.context_tokens, shape.context_tokens, of));
  return InRange("prompt", load.prompt_tokens, shape.context_tokens, of);
}

std::optional<Ridge> RidgeOf(const model::Chip& chip, Dtype weights) {
  const auto found = chip.dtypes.find(weights);
  if (found == chip.dtypes.end() || !found->second.peak_flops.known()) return std::nullopt;
  const model::DtypeFigures& figures = found->second;
  const double bytes = model::BitsPerWeight(weights) / 8;
  Ridge ridge;
  ridge.peak = figures.peak_flops.value * bytes / (2 * chip.bandwidth_bytes_per_s.value);
  ridge.reached =
      ridge.peak * figures.compute_efficiency.value / figures.bandwidth_efficiency.value;
  return ridge;
}

absl::StatusOr<DeviceFit> FitDevice(const Device& device, const ModelShape& shape,
                                    const Precision& precision, const FitLoad& load) {
  RETURN_IF_ERROR(CheckLoad(shape, load));
  CostOptions options;
  options.precision = precision;
  ASSIGN_OR_RETURN(const CostTable table, CostTable::Create(device, shape, options));
  if (device.memory_bytes() <= device.workspace_bytes()) {
    return absl::InvalidArgumentError(
        absl::StrCat("device '", device.name,
                     "': ", model::FormatQuantity(device.memory_bytes(), model::Unit::kBytes),
                     " of usable memory are no more than its workspace of ",
                     model::FormatQuantity(device.workspace_bytes(), model::Unit::kBytes)));
  }
  DeviceFit fit{device, precision, *RidgeOf(device.chip, precision.weights), {}};
  for (const Stage stage : {Stage::kPrefill, Stage::kAttention, Stage::kFfn})
    fit.stages.at(static_cast<size_t>(stage)) = FitStage(table, load, stage);
  return fit;
}

std::optional<Dtype> UsualWeights(const model::Chip& chip) {
  for (const Dtype dtype :
       {Dtype::kFp8, Dtype::kInt8, Dtype::kBf16, Dtype::kInt4, Dtype::kNvfp4, Dtype::kMxfp4}) {
    if (RidgeOf(chip, dtype).has_value()) return dtype;
  }
  return std::nullopt;
}

std::vector<model::NamedFigure> FiguresBehind(const DeviceFit& fit, const ModelShape& shape) {
  const model::Dtype weights = fit.precision.weights;
  std::vector<model::NamedFigure> behind;
  const auto take = [&](const std::vector<model::NamedFigure>& figures, auto&& wanted) {
    std::copy_if(figures.begin(), figures.end(), std::back_inserter(behind),
                 [&](const model::NamedFigure& figure) { return wanted(figure.name); });
  };
  take(FiguresOf(fit.device.chip), [](absl::string_view name) {
    return name != "power_watts" && name.substr(0, 6) != "scale_";
  });
  const std::string own = absl::StrCat("layer_seconds.", model::DtypeName(weights));
  const bool group = fit.device.layer_seconds.contains(weights);
  take(FiguresOf(fit.device.chip.dtypes.at(weights)), [&](absl::string_view name) {
    return !(name == "layer_seconds" && group) && !(name == "expert_factor" && shape.experts == 0);
  });
  take(FiguresOf(fit.device), [&](absl::string_view name) {
    return name != "link.latency_seconds" &&
           (name.substr(0, 14) != "layer_seconds." || name == own);
  });
  return behind;
}

}  // namespace tandem::cost
