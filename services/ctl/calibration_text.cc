// A calibration as a chip's file and as what the operator reads.
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <yaml-cpp/yaml.h>

#include "scheduler/model/figures.h"
#include "scheduler/model/quantity.h"
#include "services/ctl/calibration.h"
#include "services/ctl/table.h"

namespace tandem::ctl {
namespace {

using model::Figure;

std::string Percent(double share) { return absl::StrFormat("%+.1f %%", 100 * share); }

std::string CallText(const cost::CallShape& shape) {
  std::string text = absl::StrCat(shape.rows, shape.rows == 1 ? " row" : " rows");
  if (shape.kind == cost::CallKind::kAttention || shape.kind == cost::CallKind::kPrefill)
    absl::StrAppend(&text, shape.kind == cost::CallKind::kPrefill ? " after " : " at ",
                    shape.positions, " positions");
  return text;
}

std::string ExponentText(double exponent) { return exponent == 0 ? "max" : absl::StrCat(exponent); }

std::string ChipText(const CalibratedChip& calibrated, model::Dtype weights) {
  using model::FormatQuantity;
  using model::Unit;
  const model::Chip& chip = calibrated.chip;
  const model::DtypeFigures& figures = chip.dtypes.at(weights);
  const double bandwidth = chip.bandwidth_bytes_per_s.value * figures.bandwidth_efficiency.value;
  const double flops = figures.peak_flops.value;
  std::string text = absl::StrCat(
      chip.name, ": ", FormatQuantity(bandwidth, Unit::kBytesPerSecond), " of ",
      FormatQuantity(chip.bandwidth_bytes_per_s.value, Unit::kBytesPerSecond), ", ",
      FormatQuantity(flops * figures.compute_efficiency.value, Unit::kFlops), " (prefill ",
      FormatQuantity(flops * figures.prefill_compute_efficiency.value, Unit::kFlops), "), p ",
      ExponentText(figures.exponent.value), ", fixed ",
      FormatQuantity(figures.layer_seconds.value, Unit::kSeconds), " a layer (prefill ",
      FormatQuantity(figures.prefill_layer_seconds.value, Unit::kSeconds), " a chunk)\n");
  TextTable table({{"calls"},
                   {"sizes", Align::kRight},
                   {"median error", Align::kRight},
                   {"bias", Align::kRight},
                   {"worst", Align::kRight},
                   {"of"}});
  for (const planner::KindError& error : calibrated.calibration.errors) {
    table.AddRow({std::string(cost::CallKindName(error.kind)), absl::StrCat(error.calls),
                  absl::StrFormat("%.1f %%", 100 * error.median), Percent(error.bias),
                  Percent(error.worst), CallText(error.worst_call)});
  }
  absl::StrAppend(&text, table.ToString(),
                  "hand-off: ", FormatQuantity(calibrated.link.latency_seconds, Unit::kSeconds),
                  " and ", FormatQuantity(calibrated.link.bytes_per_s, Unit::kBytesPerSecond),
                  " each way; worst round trip ", Percent(calibrated.link.worst), "\n");
  return text;
}

std::string FigureYaml(const Figure& figure) {
  YAML::Emitter out;
  out << YAML::Flow << YAML::BeginMap << YAML::Key << "value";
  if (!figure.known()) {
    out << "unknown";
  } else {
    out << absl::StrFormat("%.9g", figure.value) << YAML::Key << "mark"
        << std::string(model::MarkName(figure.mark));
  }
  out << YAML::Key << "source" << YAML::DoubleQuoted << figure.source << YAML::EndMap;
  return out.c_str();
}

// "a.b" of a list of figures is the key b below a.
std::string FiguresYaml(const std::vector<model::NamedFigure>& figures, const std::string& indent) {
  std::string text, group;
  for (const model::NamedFigure& named : figures) {
    const size_t dot = named.name.find('.');
    std::string key = named.name, inner;
    if (dot != std::string::npos) {
      key = named.name.substr(dot + 1);
      inner = "  ";
      if (const std::string above = named.name.substr(0, dot); above != group) {
        group = above;
        absl::StrAppend(&text, indent, group, ":\n");
      }
    }
    absl::StrAppend(&text, indent, inner, key, ": ", FigureYaml(named.figure), "\n");
  }
  return text;
}

}  // namespace

std::string ChipYaml(const model::Chip& chip) {
  std::string text = absl::StrCat("# Written by tandemctl calibrate.\nname: ", chip.name,
                                  "\nmemory_class: ", chip.memory_class, "\n",
                                  FiguresYaml(model::FiguresOf(chip), ""), "dtypes:\n");
  for (const auto& [dtype, figures] : chip.dtypes) {
    absl::StrAppend(&text, "  ", std::string(model::DtypeName(dtype)), ":\n",
                    FiguresYaml(model::FiguresOf(figures), "    "));
  }
  return text;
}

std::string CalibrationText(const CalibrationReport& report) {
  const Measurement& m = report.measurement;
  std::string text = absl::StrFormat(
      "%s (%s, %s) on %s, %d cores, %d thread(s) a worker: %d calls, %d rounds, load %.2f to %.2f\n"
      "the same call's times lie %.1f %% apart (median, between quartiles), %.1f %% beside another "
      "worker's calls\n",
      m.model_file, report.model_shape, std::string(model::DtypeName(report.weights)), m.cpu,
      m.cores, m.threads, m.alone.calls.size(), m.rounds, m.load_before, m.load_after,
      100 * m.alone.spread, 100 * m.contended.spread);
  for (const CalibratedChip& chip : report.chips)
    absl::StrAppend(&text, "\n", ChipText(chip, report.weights));
  return text;
}

}  // namespace tandem::ctl
