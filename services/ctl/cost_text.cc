// A CostReport for a terminal, and as JSON.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>
#include <boost/json.hpp>

#include <algorithm>

#include "services/ctl/cost_report.h"
#include "services/ctl/table.h"
#include "services/runtime/tco_json.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;
using ledger::BreakEven;
using ledger::Dollars;
using ledger::LedgerState;

constexpr size_t kLabelColumns = 12;
constexpr double kLeastShare = 0.0005;  // of a row's time, to be shown among its waits

// "at least $1.20" where some of it has no price; "unknown" where nothing has.
std::string MoneyKnown(const Dollars& dollars) {
  if (dollars.complete()) return Money(dollars.known);
  return dollars.known > 0 ? absl::StrCat(">= ", Money(dollars.known)) : "unknown";
}

std::string Percent(double part, double all) {
  return all > 0 ? absl::StrFormat("%.1f%%", 100 * part / all) : "-";
}

// "handoff 12.1%, starved 40.0%", the longest first.
std::string Waits(const ledger::CostRow& row) {
  std::vector<std::pair<double, int>> waits;
  for (int cause = 1; cause < ledger::kCauses; cause++)
    waits.emplace_back(-row.seconds[static_cast<size_t>(cause)], cause);
  std::sort(waits.begin(), waits.end());
  const double all = row.AllSeconds();
  std::vector<std::string> words;
  for (const auto& [less, cause] : waits) {
    if (-less < kLeastShare * all || less == 0) break;
    words.push_back(absl::StrCat(ledger::ToString(static_cast<ledger::Cause>(cause)), " ",
                                 Percent(-less, all)));
  }
  return absl::StrJoin(words, ", ");
}

std::string Table(const ledger::Tco& tco) {
  TextTable table({{"pool"},
                   {"stage"},
                   {"memory"},
                   {"devices", Align::kRight},
                   {"$/h", Align::kRight},
                   {"$", Align::kRight},
                   {"busy", Align::kRight},
                   {"stall", Align::kRight},
                   {"idle", Align::kRight},
                   {"waits by cause"}});
  for (const ledger::CostRow& row : tco.rows) {
    const double all = row.AllSeconds();
    const Dollars dollars = row.AllDollars();
    table.AddRow({row.pool, row.stage.has_value() ? ledger::ToString(*row.stage) : "unattributed",
                  row.memory_class == MemoryClass::kSram ? "sram" : "hbm",
                  absl::StrCat(row.devices),
                  dollars.complete() ? Money(row.dollars_per_hour) : "unknown", MoneyKnown(dollars),
                  Percent(row.Seconds(LedgerState::kBusy), all),
                  Percent(row.Seconds(LedgerState::kStall), all),
                  Percent(row.Seconds(LedgerState::kIdle), all), Waits(row)});
  }
  return table.ToString();
}

// "label       text", wrapped below itself.
void AddLine(std::string& out, absl::string_view label, absl::string_view text) {
  for (const std::string& line : WrapText(text, kTerminalColumns - kLabelColumns)) {
    absl::StrAppendFormat(&out, "%-*s%s\n", static_cast<int>(kLabelColumns), std::string(label),
                          line);
    label = "";
  }
}

std::string TimeText(const CostReport& report) {
  const EmulatedTime emulated = EmulatedTimeOf(report.devices);
  double wall = 0;
  for (const ledger::DeviceAccount& device : report.devices)
    wall = std::max(wall, device.wall.seconds());
  std::string text = absl::StrFormat("%.1f s of %d devices", wall, report.devices.size());
  if (emulated.devices > 0) {
    absl::StrAppendFormat(&text,
                          "; time is emulated on %d of them: %.4g device seconds in %.4g wall "
                          "seconds",
                          emulated.devices, emulated.device_seconds, emulated.wall_seconds);
  }
  const auto lost = std::count_if(report.devices.begin(), report.devices.end(),
                                  [](const auto& device) { return device.lost; });
  if (lost > 0) absl::StrAppendFormat(&text, "; %d lost (idle, down)", lost);
  return text;
}

std::string PerMtok(const std::optional<double>& value) {
  return value.has_value() ? Money(*value) : "unknown";
}

void AddCost(const ledger::Tco& tco, std::string& out) {
  const Dollars total = tco.total();
  AddLine(out, "tokens",
          absl::StrFormat("%u in (%u prompts), %u out", tco.tokens.tokens_in, tco.tokens.prompts,
                          tco.tokens.tokens_out));
  AddLine(out, "cost",
          absl::StrCat(
              MoneyKnown(total),
              tco.unpriced.empty() ? absl::StrCat(", ", Money(tco.dollars_per_hour()), "/h") : "",
              ": input ", MoneyKnown(tco.input), ", output ", MoneyKnown(tco.output),
              ", unattributed ", MoneyKnown(tco.unattributed)));
  AddLine(out, "idle",
          absl::StrCat(MoneyKnown(tco.idle), " (",
                       total.complete() ? Percent(tco.idle.known, total.known) : "of it",
                       "); stalled ", MoneyKnown(tco.stall)));
  AddLine(out, "$/Mtok",
          absl::StrCat("in ", PerMtok(tco.per_mtok_in()), ", out ", PerMtok(tco.per_mtok_out()),
                       ", total ", PerMtok(tco.per_mtok_total()), "  [", model::MarkName(tco.mark),
                       "]"));
  if (!tco.unpriced.empty()) {
    AddLine(out, "",
            absl::StrCat("no price of ", absl::StrJoin(tco.unpriced, ", "),
                         ": give one with --prices FILE"));
  }
  if (const auto joules = tco.joules_per_token(); joules.has_value())
    AddLine(out, "J/token", absl::StrFormat("%.3g, at every device's power under load", *joules));
}

void AddForecast(const CostReport& report, std::string& out) {
  const std::string name = absl::StrCat(report.question.baseline, ", forecast");
  if (!report.baseline.has_value())
    return AddLine(out, "baseline", absl::StrCat(name, ": none: ", report.why_no_baseline));
  const planner::BaselineForecast& baseline = *report.baseline;
  AddLine(
      out, "baseline",
      absl::StrFormat(
          "%s: %s per Mtok (%s to %s: the cost model's median error of TPOT, %.1f %%)  [%s]", name,
          Money(baseline.per_mtok), Money(baseline.per_mtok_low()), Money(baseline.per_mtok_high()),
          100 * planner::kTpotMedianError, model::MarkName(ledger::Weakest(baseline.inputs))));
  AddLine(out, "",
          absl::StrFormat(
              "%s with %s, %s %s, %u + %u tokens a request: batch %u (KV holds %u), TPOT %.3g ms "
              "of the SLO's %.3g, prefill %.3g of %.4g ms, %.4g output tokens/s; %.3g "
              "devices, fully used, would carry the load, so %.0f",
              baseline.device, report.question.engine, report.load.model_shape,
              std::string(model::DtypeName(report.load.weights)), report.load.request.prompt_tokens,
              report.load.request.output_tokens, baseline.batch, baseline.batch_that_fits,
              1e3 * baseline.tpot.seconds(), 1e3 * report.question.slo.tpot.seconds(),
              1e3 * baseline.prefill.seconds(), 1e3 * report.question.slo.ttft.seconds(),
              baseline.output_tokens_per_s, baseline.devices, std::ceil(baseline.devices)));
}

void AddBaseline(const CostReport& report, std::string& out) {
  AddForecast(report, out);
  if (!report.measured.has_value()) return;
  const MeasuredBaseline& measured = *report.measured;
  AddLine(
      out, "",
      absl::StrFormat(
          "measured on one emulated %s with our own engine: %s per Mtok; %u clients, TPOT %.3g "
          "ms, %.4g output tokens/s over %.4g s of its time. Break-even is against this",
          report.baseline->device, Money(measured.per_mtok), measured.clients,
          1e3 * measured.tpot.seconds(), measured.output_tokens_per_s, measured.device_seconds));
}

// "$12 (10 to 14)" or why there is none.
template <typename Format>
std::string Ranged(const BreakEven& value, const BreakEven& low, const BreakEven& high,
                   const Format& format) {
  if (!value.value.has_value()) return value.why_not;
  return absl::StrCat(format(*value.value), " (", low.value ? format(*low.value) : "none", " to ",
                      high.value ? format(*high.value) : "none", ")");
}

void AddBreakEven(const CostReport& report, std::string& out) {
  const ledger::SpecialistView& view = report.specialist;
  if (view.pools.empty()) {
    return AddLine(out, "break-even",
                   absl::StrCat("no pool is '", report.question.specialist,
                                "': name the specialist with --specialist POOL"));
  }
  const auto money = [](double dollars) { return absl::StrCat(Money(dollars), "/h"); };
  const auto share = [](double part) { return Percent(part, 1); };
  AddLine(out, "break-even",
          absl::StrCat("price of a device of pool ", absl::StrJoin(view.pools, ", "), ": ",
                       Ranged(report.price, report.price_low, report.price_high, money),
                       view.dollars_per_hour.has_value()
                           ? absl::StrCat("; it costs ", money(*view.dollars_per_hour))
                           : "; its price is unknown"));
  AddLine(out, "",
          absl::StrCat("occupancy: ",
                       Ranged(report.occupancy, report.occupancy_low, report.occupancy_high, share),
                       "; it is ", share(view.occupancy),
                       ". Assumed: tokens grow with its busy time, other pools' cost by the hour "
                       "stays"));
}

void AddInputs(const CostReport& report, std::string& out) {
  std::vector<ledger::Input> inputs = report.tco.inputs;
  if (report.baseline.has_value())
    inputs.insert(inputs.end(), report.baseline->inputs.begin(), report.baseline->inputs.end());
  absl::string_view label = "inputs";
  for (const ledger::Input& input : inputs) {
    std::string line = absl::StrFormat(
        "%-*s%s %s [%s] %s", static_cast<int>(kLabelColumns), std::string(label), input.name,
        input.figure.known() ? absl::StrFormat("%.4g", input.figure.value) : "unknown",
        model::MarkName(input.figure.mark), input.figure.source);
    if (line.size() > kTerminalColumns) line = line.substr(0, kTerminalColumns - 3) + "...";
    absl::StrAppend(&out, line, "\n");
    label = "";
  }
}

json::value BreakEvenJson(const BreakEven& value, const BreakEven& low, const BreakEven& high) {
  const auto number = [](const BreakEven& of) {
    return of.value.has_value() ? json::value(*of.value) : json::value(nullptr);
  };
  return {{"value", number(value)},
          {"low", number(low)},
          {"high", number(high)},
          {"why_not", value.why_not}};
}

json::value MeasuredJson(const MeasuredBaseline& measured) {
  return {{"kind", "measured on an emulated device"},
          {"clients", measured.clients},
          {"device_seconds", measured.device_seconds},
          {"tokens_in", measured.tokens.tokens_in},
          {"tokens_out", measured.tokens.tokens_out},
          {"tpot_seconds", measured.tpot.seconds()},
          {"output_tokens_per_s", measured.output_tokens_per_s},
          {"dollars_per_mtok_total", measured.per_mtok}};
}

json::value BaselineJson(const CostReport& report) {
  json::object out = {{"name", report.question.baseline},
                      {"kind", "forecast"},
                      {"engine", report.question.engine},
                      {"slo_tpot_seconds", report.question.slo.tpot.seconds()},
                      {"slo_ttft_seconds", report.question.slo.ttft.seconds()},
                      {"tpot_median_error", planner::kTpotMedianError},
                      {"model_shape", report.load.model_shape},
                      {"weights", std::string(model::DtypeName(report.load.weights))},
                      {"prompt_tokens", report.load.request.prompt_tokens},
                      {"output_tokens", report.load.request.output_tokens},
                      {"load_output_tokens_per_s", report.load.output_tokens_per_s},
                      {"why_not", report.why_no_baseline}};
  if (!report.baseline.has_value()) return out;
  const planner::BaselineForecast& baseline = *report.baseline;
  out["device"] = baseline.device;
  out["batch"] = baseline.batch;
  out["batch_that_fits"] = baseline.batch_that_fits;
  out["tpot_seconds"] = baseline.tpot.seconds();
  out["prefill_seconds"] = baseline.prefill.seconds();
  out["output_tokens_per_s"] = baseline.output_tokens_per_s;
  out["devices"] = baseline.devices;
  out["dollars_per_hour"] = baseline.price.dollars_per_hour.value;
  out["dollars_per_mtok_total"] = baseline.per_mtok;
  out["dollars_per_mtok_low"] = baseline.per_mtok_low();
  out["dollars_per_mtok_high"] = baseline.per_mtok_high();
  out["mark"] = std::string(model::MarkName(ledger::Weakest(baseline.inputs)));
  out["inputs"] = ToJson(baseline.inputs);
  if (report.measured.has_value()) out["measured"] = MeasuredJson(*report.measured);
  return out;
}

}  // namespace

std::string Money(double dollars) {
  return dollars >= 100 || dollars == 0 ? absl::StrFormat("$%.0f", dollars)
                                        : absl::StrFormat("$%.3g", dollars);
}

std::string CostText(const CostReport& report) {
  std::string out = Table(report.tco);
  absl::StrAppend(&out, "\n");
  AddLine(out, "window", TimeText(report));
  AddCost(report.tco, out);
  AddBaseline(report, out);
  AddBreakEven(report, out);
  AddInputs(report, out);
  return out;
}

json::object CostJson(const CostReport& report) {
  json::object out = TcoJson(report.devices, report.tco);
  const ledger::SpecialistView& view = report.specialist;
  json::array pools;
  for (const std::string& pool : view.pools) pools.emplace_back(pool);
  out["window_seconds"] = report.question.window.seconds();
  out["baseline"] = BaselineJson(report);
  out["specialist"] = {
      {"pools", std::move(pools)},
      {"devices", view.devices},
      {"device_hours", view.device_hours},
      {"occupancy", view.occupancy},
      {"dollars_per_hour",
       view.dollars_per_hour ? json::value(*view.dollars_per_hour) : json::value(nullptr)}};
  out["break_even"] = {
      {"dollars_per_hour", BreakEvenJson(report.price, report.price_low, report.price_high)},
      {"occupancy", BreakEvenJson(report.occupancy, report.occupancy_low, report.occupancy_high)},
      {"assumed",
       "tokens grow with the specialists' busy time, constant work per token; other pools' "
       "cost by the hour stays"}};
  return out;
}

}  // namespace tandem::ctl
