#include "scheduler/model/chip.h"

#include <absl/strings/str_cat.h>

#include "scheduler/base/status.h"

namespace tandem::model {

absl::StatusOr<Chip> ReadChip(absl::string_view yaml, absl::string_view where) {
  YamlFields fields(yaml, where);
  Chip chip;
  chip.name = fields.Text("name");
  chip.dtype = fields.Text("dtype");
  chip.memory_class = fields.Text("memory_class");
  chip.memory_bytes = fields.Sourced("memory_bytes", 1, 1e16);
  chip.bandwidth_bytes_per_s = fields.Sourced("bandwidth_bytes_per_s", 1, 1e18);
  chip.peak_flops = fields.Sourced("peak_flops", 1, 1e20);
  chip.bandwidth_efficiency = fields.Sourced("bandwidth_efficiency", 1e-3, 1.5);
  chip.compute_efficiency = fields.Sourced("compute_efficiency", 1e-3, 1.5);
  chip.layer_overhead_seconds = fields.Sourced("layer_overhead_seconds", 0, 1);
  chip.roofline_exponent = fields.Sourced("roofline_exponent", 0, 4);
  chip.link_bytes_per_s = fields.Sourced("link_bytes_per_s", 1, 1e16);
  chip.link_latency_seconds = fields.Sourced("link_latency_seconds", 0, 1);
  RETURN_IF_ERROR(fields.Finish());
  if (chip.memory_class != "hbm" && chip.memory_class != "sram") {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": memory_class: '", chip.memory_class, "' is not hbm or sram"));
  }
  const double p = chip.roofline_exponent.value;
  if (p != 0 && p != 1 && p != 2 && p != 4) {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": roofline_exponent: ", p, " is not 0, 1, 2 or 4"));
  }
  return chip;
}

}  // namespace tandem::model
