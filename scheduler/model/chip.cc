#include "scheduler/model/chip.h"

#include <absl/strings/str_cat.h>
#include <yaml-cpp/yaml.h>

#include "scheduler/base/status.h"

namespace tandem::model {
namespace {

constexpr Range kEfficiencyRange = {1e-3, 1.5};  // fits overshoot 1 where terms are missing

void RequireExponent(YamlReader& reader, Figure& exponent) {
  RequireFigure(reader, "exponent", {0, 4}, exponent);
  const double p = exponent.value;
  if (p != 0 && p != 1 && p != 2 && p != 4)
    reader.Refuse("exponent", absl::StrCat(p, " is not 0, 1, 2 or 4"));
}

absl::Status ReadDtype(YamlReader reader, DtypeFigures& figures) {
  RequireFigure(reader, "peak_flops", kPeakFlopsRange, figures.peak_flops, IfUnknown::kAllow);
  RequireFigure(reader, "bandwidth_efficiency", kEfficiencyRange, figures.bandwidth_efficiency);
  RequireFigure(reader, "compute_efficiency", kEfficiencyRange, figures.compute_efficiency);
  RequireExponent(reader, figures.exponent);
  RequireFigure(reader, "layer_seconds", kLayerSecondsRange, figures.layer_seconds);
  RequireFigure(reader, "expert_factor", {0.5, 10}, figures.expert_factor);
  RequireFigure(reader, "prefill_compute_efficiency", kEfficiencyRange,
                figures.prefill_compute_efficiency);
  RequireFigure(reader, "prefill_layer_seconds", kLayerSecondsRange, figures.prefill_layer_seconds);
  return reader.Finish();
}

absl::Status ReadDtypes(YamlReader reader, Chip& chip) {
  for (const Dtype dtype : kAllDtypes) {
    const std::string name(DtypeName(dtype));
    if (!reader.Has(name)) continue;
    DtypeFigures& figures = chip.dtypes[dtype];
    reader.GetMapping(
        name, [&](const YAML::Node& node) { return ReadDtype(reader.Below(node, name), figures); });
  }
  return reader.Finish();
}

}  // namespace

void RequireLink(YamlReader& reader, const std::string& key, LinkFigures& link, IfUnknown unknown) {
  if (!reader.Needs(key)) return;
  reader.GetMapping(key, [&](const YAML::Node& node) {
    YamlReader fields = reader.Below(node, key);
    RequireFigure(fields, "bytes_per_s", kBytesPerSecondRange, link.bytes_per_s, unknown);
    RequireFigure(fields, "latency_seconds", {0, 1}, link.latency_seconds, unknown);
    return fields.Finish();
  });
}

absl::StatusOr<Chip> ReadChip(absl::string_view yaml, absl::string_view where) {
  const std::string file(where);
  ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(yaml, file));
  YamlReader reader(root, file);
  Chip chip;
  RequireText(reader, "name", chip.name);
  RequireText(reader, "memory_class", chip.memory_class);
  if (chip.memory_class != "hbm" && chip.memory_class != "sram")
    reader.Refuse("memory_class", absl::StrCat("'", chip.memory_class, "' is not hbm or sram"));
  RequireFigure(reader, "memory_bytes", kMemoryBytesRange, chip.memory_bytes);
  RequireFigure(reader, "usable_memory", {0.1, 1}, chip.usable_memory);
  RequireFigure(reader, "workspace_bytes", {0, 1e15}, chip.workspace_bytes);
  RequireFigure(reader, "bandwidth_bytes_per_s", kBytesPerSecondRange, chip.bandwidth_bytes_per_s);
  RequireLink(reader, "scale_up", chip.scale_up, IfUnknown::kAllow);
  RequireLink(reader, "scale_out", chip.scale_out, IfUnknown::kRefuse);
  RequireFigure(reader, "power_watts", kPowerWattsRange, chip.power_watts, IfUnknown::kAllow);
  RequireFigure(reader, "dollars_per_hour", kDollarsPerHourRange, chip.dollars_per_hour,
                IfUnknown::kAllow);
  if (reader.Needs("dtypes")) {
    reader.GetMapping("dtypes", [&](const YAML::Node& node) {
      return ReadDtypes(reader.Below(node, "dtypes"), chip);
    });
    if (chip.dtypes.empty()) reader.Refuse("dtypes", "holds none");
  }
  RETURN_IF_ERROR(reader.Finish());
  return chip;
}

}  // namespace tandem::model
