#include "scheduler/model/figures.h"

#include <absl/strings/str_cat.h>

namespace tandem::model {

std::vector<NamedFigure> FiguresOf(const Chip& chip) {
  return {{"memory_bytes", Unit::kBytes, chip.memory_bytes},
          {"usable_memory", Unit::kNone, chip.usable_memory},
          {"workspace_bytes", Unit::kBytes, chip.workspace_bytes},
          {"bandwidth_bytes_per_s", Unit::kBytesPerSecond, chip.bandwidth_bytes_per_s},
          {"scale_up.bytes_per_s", Unit::kBytesPerSecond, chip.scale_up.bytes_per_s},
          {"scale_up.latency_seconds", Unit::kSeconds, chip.scale_up.latency_seconds},
          {"scale_out.bytes_per_s", Unit::kBytesPerSecond, chip.scale_out.bytes_per_s},
          {"scale_out.latency_seconds", Unit::kSeconds, chip.scale_out.latency_seconds},
          {"power_watts", Unit::kWatts, chip.power_watts},
          {"dollars_per_hour", Unit::kDollarsPerHour, chip.dollars_per_hour}};
}

std::vector<NamedFigure> FiguresOf(const DtypeFigures& figures) {
  return {{"peak_flops", Unit::kFlops, figures.peak_flops},
          {"bandwidth_efficiency", Unit::kNone, figures.bandwidth_efficiency},
          {"compute_efficiency", Unit::kNone, figures.compute_efficiency},
          {"exponent", Unit::kNone, figures.exponent},
          {"layer_seconds", Unit::kSeconds, figures.layer_seconds},
          {"expert_factor", Unit::kNone, figures.expert_factor},
          {"prefill_compute_efficiency", Unit::kNone, figures.prefill_compute_efficiency},
          {"prefill_layer_seconds", Unit::kSeconds, figures.prefill_layer_seconds}};
}

std::vector<NamedFigure> FiguresOf(const Engine& engine) {
  std::vector<NamedFigure> figures = {
      {"step_seconds", Unit::kSeconds, engine.step_seconds},
      {"sequence_seconds", Unit::kSeconds, engine.sequence_seconds},
      {"prefill_share", Unit::kNone, engine.prefill_share},
      {"request_seconds", Unit::kSeconds, engine.request_seconds},
      {"open_request_seconds", Unit::kSeconds, engine.open_request_seconds},
      {"step_tokens", Unit::kNone, engine.step_tokens},
      {"kv_reserve", Unit::kNone, engine.kv_reserve},
      {"kv_element_bytes", Unit::kBytes, engine.kv_element_bytes}};
  for (const auto& [scope, factors] : engine.factors) {
    for (const auto& [name, figure] : factors.figures)
      figures.push_back({absl::StrCat(scope, ".", name), Unit::kNone, figure});
  }
  return figures;
}

std::vector<NamedFigure> FiguresOf(const Device& device) {
  std::vector<NamedFigure> figures;
  if (device.tp > 1) {
    figures = {{"all_reduce.base_seconds", Unit::kSeconds, device.all_reduce.base_seconds},
               {"all_reduce.doubling_seconds", Unit::kSeconds, device.all_reduce.doubling_seconds},
               {"all_reduce.bytes_per_s", Unit::kBytesPerSecond, device.all_reduce.bytes_per_s}};
  }
  figures.push_back({"link.bytes_per_s", Unit::kBytesPerSecond, device.link.bytes_per_s});
  figures.push_back({"link.latency_seconds", Unit::kSeconds, device.link.latency_seconds});
  for (const auto& [dtype, seconds] : device.layer_seconds) {
    figures.push_back({absl::StrCat("layer_seconds.", DtypeName(dtype)), Unit::kSeconds, seconds});
  }
  return figures;
}

}  // namespace tandem::model
