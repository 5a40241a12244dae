// FitReport as text and as JSON.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>
#include <absl/strings/strip.h>
#include <boost/json.hpp>

#include <algorithm>
#include <array>

#include "scheduler/cost/ops.h"
#include "services/ctl/figure_view.h"
#include "services/ctl/fit_report.h"
#include "services/ctl/table.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;
using cost::DeviceFit;
using cost::Op;
using cost::StageFit;
using model::Dtype;
using model::FormatQuantity;
using model::Unit;

constexpr std::array<Stage, 3> kStages = {Stage::kPrefill, Stage::kAttention, Stage::kFfn};
constexpr size_t kNoteColumns = kTerminalColumns - 4;

std::string Bytes(double bytes) { return FormatQuantity(bytes, Unit::kBytes); }
std::string Seconds(Duration time) { return FormatQuantity(time.seconds(), Unit::kSeconds); }
std::string WeightsName(const DeviceFit& fit) {
  return std::string(model::DtypeName(fit.precision.weights));
}
const StageFit& Of(const DeviceFit& fit, Stage stage) {
  return fit.stages.at(static_cast<size_t>(stage));
}

void AddWrappedNote(absl::string_view text, TextTable& table) {
  for (const std::string& line : WrapText(text, kNoteColumns)) table.AddNote(line);
}

std::string SummaryTable(const FitReport& report) {
  TextTable table({{"device"},
                   {"weights"},
                   {"prefill"},
                   {"attention"},
                   {"ffn"},
                   {"ridge, rows (at peak)", Align::kRight},
                   {"price", Align::kRight}});
  for (const DeviceFit& fit : report.fits) {
    const auto dollars = fit.device.dollars_per_second();
    std::vector<std::string> row = {fit.device.name, WeightsName(fit)};
    for (const Stage stage : kStages)
      row.emplace_back(cost::GradeName(Of(fit, stage).verdict.grade));
    row.push_back(absl::StrFormat("%.3g (%.3g)", fit.ridge.reached, fit.ridge.peak));
    row.push_back(dollars.has_value() ? FormatQuantity(*dollars * 3600, Unit::kDollarsPerHour)
                                      : "unknown");
    table.AddRow(std::move(row));
  }
  return table.ToString();
}

std::string StageTitle(Stage stage, const cost::FitLoad& load) {
  switch (stage) {
    case Stage::kPrefill:
      return absl::StrCat("prefill: one prompt of ", load.prompt_tokens, " tokens");
    case Stage::kAttention:
      return absl::StrCat("attention: a step of ", load.batch, " sequences of ",
                          load.context_tokens,
                          " tokens, spread over the devices that hold their KV");
    case Stage::kFfn:
      return absl::StrCat("ffn: a step of ", load.batch, " rows");
  }
  return "";
}

// The part that bounds, and its share of the time.
std::string BoundText(const StageFit& fit) {
  double part = 0;
  switch (fit.bound) {
    case cost::Bound::kMemory:
      part = fit.parts.memory;
      break;
    case cost::Bound::kCompute:
      part = fit.parts.compute;
      break;
    case cost::Bound::kFixed:
      part = fit.parts.fixed;
      break;
    case cost::Bound::kAllReduce:
      part = fit.all_reduce();
      break;
    case cost::Bound::kLink:
      return absl::StrCat("link ", Seconds(fit.link_time));
  }
  return absl::StrFormat("%s %.0f%%", cost::BoundName(fit.bound),
                         100 * std::min(1.0, fit.Share(part)));
}

std::string StageTable(const FitReport& report, Stage stage) {
  TextTable table({{"device"},
                   {"rows", Align::kRight},
                   {"time", Align::kRight},
                   {"bound by"},
                   {"needs", Align::kRight},
                   {"one holds", Align::kRight},
                   {"devices", Align::kRight},
                   {"tok/s", Align::kRight},
                   {"$/Mtok", Align::kRight}});
  for (const DeviceFit& device : report.fits) {
    const StageFit& fit = Of(device, stage);
    const double needs = fit.weight_bytes + fit.kv_bytes;
    table.AddRow(
        {device.device.name, absl::StrCat(fit.rows), Seconds(fit.time), BoundText(fit),
         Bytes(needs), absl::StrFormat("%.3g%%", 100 * std::min(1.0, fit.device_bytes / needs)),
         absl::StrCat(fit.devices), FormatQuantity(fit.tokens_per_s, Unit::kNone),
         fit.dollars_per_mtok.has_value() ? FormatQuantity(*fit.dollars_per_mtok, Unit::kDollars)
                                          : "unknown"});
    AddWrappedNote(absl::StrCat(cost::GradeName(fit.verdict.grade), ": ", fit.verdict.rule), table);
  }
  return table.ToString();
}

std::string OpsTable(const std::vector<Op>& ops) {
  TextTable table({{"op"},
                   {"calls", Align::kRight},
                   {"reads", Align::kRight},
                   {"writes", Align::kRight},
                   {"computes", Align::kRight},
                   {"FLOP/B", Align::kRight},
                   {"shape"}});
  for (const Op& op : ops) {
    table.AddRow({op.name, absl::StrCat(op.calls), Bytes(op.bytes() - op.write_bytes),
                  Bytes(op.write_bytes), FormatQuantity(op.flops(), Unit::kFlopCount),
                  FormatQuantity(op.intensity(), Unit::kNone), op.shape});
  }
  return table.ToString();
}

std::vector<Dtype> DtypesOf(const FitReport& report) {
  std::vector<Dtype> dtypes;
  for (const DeviceFit& fit : report.fits) {
    if (std::find(dtypes.begin(), dtypes.end(), fit.precision.weights) == dtypes.end())
      dtypes.push_back(fit.precision.weights);
  }
  return dtypes;
}

std::vector<Op> PromptOpsOf(const FitReport& report, Dtype weights) {
  return cost::PromptOps(report.shape, {weights}, report.load.prompt_tokens);
}
std::vector<Op> StepOpsOf(const FitReport& report, Dtype weights) {
  const auto rows = cost::AttentionRows::Even(report.shape, report.load.batch,
                                              report.load.batch * report.load.context_tokens);
  return cost::DecodeStepOps(report.shape, {weights}, rows);
}

std::string OpsText(const FitReport& report) {
  std::string text;
  for (const Dtype weights : DtypesOf(report)) {
    absl::StrAppend(
        &text, "\none call of each op, ", model::DtypeName(weights), " weights: a prompt of ",
        report.load.prompt_tokens, " tokens\n", OpsTable(PromptOpsOf(report, weights)),
        "\na step of ", report.load.batch, " x ", report.load.context_tokens,
        " tokens; ffn and experts are the FFN stage's\n", OpsTable(StepOpsOf(report, weights)));
  }
  return text;
}

// What the answer stands on, a paragraph a device.
std::string Legend(const FitReport& report) {
  std::string text = "\nwhat these stand on:\n";
  for (const DeviceFit& fit : report.fits) {
    const std::string line = absl::StrCat(fit.device.name, " (", WeightsName(fit), ") ",
                                          MarkLegend(FiguresBehind(fit, report.shape)));
    const std::vector<std::string> lines = WrapText(line, kNoteColumns);
    absl::StrAppend(&text, absl::StrJoin(lines, "\n    "), "\n");
  }
  return text;
}

json::value Optional(const std::optional<double>& value) {
  if (!value.has_value()) return nullptr;
  return *value;
}

json::value StageJson(const StageFit& fit) {
  return {{"grade", std::string(cost::GradeName(fit.verdict.grade))},
          {"rule", fit.verdict.rule},
          {"rows", fit.rows},
          {"seconds", fit.time.seconds()},
          {"link_seconds", fit.link_time.seconds()},
          {"bound", std::string(cost::BoundName(fit.bound))},
          {"parts",
           {{"memory", fit.parts.memory},
            {"compute", fit.parts.compute},
            {"fixed", fit.parts.fixed},
            {"all_reduce", fit.all_reduce()}}},
          {"weight_bytes", fit.weight_bytes},
          {"kv_bytes", fit.kv_bytes},
          {"kv_copies", fit.kv_copies},
          {"device_bytes", fit.device_bytes},
          {"devices_for_weights", fit.devices_for_weights},
          {"devices", fit.devices},
          {"tokens_per_s", fit.tokens_per_s},
          {"dollars_per_mtok", Optional(fit.dollars_per_mtok)}};
}

json::value DeviceJson(const FitReport& report, const DeviceFit& fit) {
  json::object stages;
  for (const Stage stage : kStages) stages[ToString(stage)] = StageJson(Of(fit, stage));
  json::array figures;
  for (const model::NamedFigure& figure : FiguresBehind(fit, report.shape))
    figures.push_back(FigureJson(figure));
  const auto dollars = fit.device.dollars_per_second();
  return {{"device", fit.device.name},
          {"chip", fit.device.chip.name},
          {"chips", fit.device.count},
          {"memory_class", fit.device.chip.memory_class},
          {"weights", WeightsName(fit)},
          {"ridge_rows", fit.ridge.reached},
          {"ridge_rows_at_peak", fit.ridge.peak},
          {"dollars_per_hour",
           Optional(dollars.has_value() ? std::optional(*dollars * 3600) : std::nullopt)},
          {"stages", std::move(stages)},
          {"figures", std::move(figures)}};
}

json::array OpsJson(const std::vector<Op>& ops) {
  json::array list;
  for (const Op& op : ops) {
    list.push_back({{"name", op.name},
                    {"stage", ToString(op.stage)},
                    {"shape", op.shape},
                    {"calls", op.calls},
                    {"weight_bytes", op.work.weight_bytes},
                    {"kv_bytes", op.work.kv_bytes},
                    {"read_bytes", op.read_bytes},
                    {"write_bytes", op.write_bytes},
                    {"flops", op.flops()},
                    {"flops_per_byte", op.intensity()}});
  }
  return list;
}

}  // namespace

std::string FitText(const FitReport& report, bool ops) {
  std::string text = absl::StrCat(report.shape.name,
                                  ": each stage on a pool of its own, kept busy; KV of 16 bits; "
                                  "rates are of one device\n");
  for (const std::string& what_if : report.what_ifs)
    absl::StrAppend(&text, "what if ", what_if, "\n");
  absl::StrAppend(&text, "\n", SummaryTable(report));
  for (const Stage stage : kStages)
    absl::StrAppend(&text, "\n", StageTitle(stage, report.load), "\n", StageTable(report, stage));
  if (ops) absl::StrAppend(&text, OpsText(report));
  absl::StrAppend(&text, Legend(report));
  return std::string(absl::StripTrailingAsciiWhitespace(text));
}

std::string FitJson(const FitReport& report) {
  json::array devices;
  for (const DeviceFit& fit : report.fits) devices.push_back(DeviceJson(report, fit));
  json::object ops;
  for (const Dtype weights : DtypesOf(report)) {
    ops[std::string(model::DtypeName(weights))] = {
        {"prompt", OpsJson(PromptOpsOf(report, weights))},
        {"step", OpsJson(StepOpsOf(report, weights))}};
  }
  const json::value all = {{"model", report.shape.name},
                           {"batch", report.load.batch},
                           {"context_tokens", report.load.context_tokens},
                           {"prompt_tokens", report.load.prompt_tokens},
                           {"what_if", json::value_from(report.what_ifs)},
                           {"devices", std::move(devices)},
                           {"ops", std::move(ops)}};
  return json::serialize(all);
}

}  // namespace tandem::ctl
