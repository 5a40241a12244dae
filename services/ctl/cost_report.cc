#include "services/ctl/cost_report.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <cmath>
#include <set>
#include <utility>

#include "scheduler/base/status.h"

namespace tandem::ctl {
namespace {

using ledger::DeviceAccount;

// The pools that are named, by themselves or by their memory class. None has to be of a class.
absl::StatusOr<std::set<std::string>> SpecialistPools(const std::vector<DeviceAccount>& devices,
                                                      const std::string& specialist) {
  std::set<std::string> all, chosen;
  for (const DeviceAccount& device : devices) {
    all.insert(device.pool);
    const std::string memory = device.memory_class == MemoryClass::kSram ? "sram" : "hbm";
    if (device.pool == specialist || memory == specialist) chosen.insert(device.pool);
  }
  if (chosen.empty() && specialist != "sram" && specialist != "hbm") {
    return absl::InvalidArgumentError(absl::StrCat("specialist '", specialist,
                                                   "' is neither sram, hbm nor one of the pools ",
                                                   absl::StrJoin(all, ", ")));
  }
  return chosen;
}

// What was served, as a load of requests all alike. Empty: it is one; else why it is none.
absl::StatusOr<std::string> FillLoad(const std::vector<DeviceAccount>& devices,
                                     const CostQuestion& question, planner::BaselineLoad& load) {
  ledger::TokenCounts tokens;
  double longest = 0;
  load.model_shape = question.model_shape;
  std::string weights = question.weights;
  for (const DeviceAccount& device : devices) {
    tokens += device.tokens;
    longest = std::max(longest, device.elapsed.seconds());
    if (load.model_shape.empty()) load.model_shape = device.model_shape;
    if (weights.empty()) weights = device.weights;
  }
  if (load.model_shape.empty())
    return "the workers name no model of the catalog: say which with --model-shape";
  if (!weights.empty()) {
    ASSIGN_OR_RETURN(load.weights, model::ParseDtype(weights));
  }
  if (tokens.prompts == 0 || tokens.tokens_out == 0 || longest <= 0)
    return absl::StrCat("no load to forecast: ", tokens.prompts, " prompts began and ",
                        tokens.tokens_out, " tokens were emitted in the window");
  load.request = {tokens.tokens_in / tokens.prompts,
                  std::max<uint64_t>(tokens.tokens_out / tokens.prompts, 1)};
  load.output_tokens_per_s = static_cast<double>(tokens.tokens_out) / longest;
  return "";
}

absl::Status AddBaseline(const model::Catalog& catalog, const ledger::PriceList& prices,
                         CostReport& report) {
  ASSIGN_OR_RETURN(const model::Engine engine,
                   planner::FindEngine(catalog, report.question.engine));
  RETURN_IF_ERROR(planner::CheckBaseline(catalog, report.question.baseline));
  ASSIGN_OR_RETURN(report.why_no_baseline, FillLoad(report.devices, report.question, report.load));
  if (!report.why_no_baseline.empty()) return absl::OkStatus();
  absl::StatusOr<planner::BaselineForecast> forecast = planner::ForecastBaseline(
      catalog, prices, report.question.baseline, report.load, report.question.slo, engine);
  if (absl::IsFailedPrecondition(forecast.status())) {
    report.why_no_baseline = std::string(forecast.status().message());
    return absl::OkStatus();
  }
  RETURN_IF_ERROR(forecast.status());
  report.baseline = *std::move(forecast);
  return absl::OkStatus();
}

void AddBreakEven(CostReport& report) {
  if (!report.baseline.has_value()) {
    for (ledger::BreakEven* each :
         {&report.price, &report.price_low, &report.price_high, &report.occupancy,
          &report.occupancy_low, &report.occupancy_high})
      each->why_not = "there is no baseline to compare with";
    return;
  }
  const ledger::SpecialistView& view = report.specialist;
  const planner::BaselineForecast& forecast = *report.baseline;
  const double middle = report.measured ? report.measured->per_mtok : forecast.per_mtok;
  const double low = report.measured ? middle : forecast.per_mtok_low();
  const double high = report.measured ? middle : forecast.per_mtok_high();
  report.price = ledger::BreakEvenPrice(view, middle);
  report.price_low = ledger::BreakEvenPrice(view, low);
  report.price_high = ledger::BreakEvenPrice(view, high);
  report.occupancy = ledger::BreakEvenOccupancy(view, middle);
  report.occupancy_low = ledger::BreakEvenOccupancy(view, high);
  report.occupancy_high = ledger::BreakEvenOccupancy(view, low);
}

}  // namespace

void ApplyPrices(const ledger::PriceList& prices, std::vector<DeviceAccount>& devices) {
  for (DeviceAccount& device : devices)
    device.price = prices.PriceOf(device.pool, device.device, std::move(device.price));
}

absl::StatusOr<CostReport> MakeCostReport(std::vector<DeviceAccount> devices,
                                          const CostQuestion& question,
                                          const model::Catalog& catalog,
                                          const ledger::PriceList& prices) {
  CostReport report;
  report.question = question;
  report.devices = std::move(devices);
  report.tco = ledger::CostOf(report.devices);
  ASSIGN_OR_RETURN(const std::set<std::string> pools,
                   SpecialistPools(report.devices, question.specialist));
  report.specialist = ledger::ViewSpecialists(report.devices, pools);
  RETURN_IF_ERROR(AddBaseline(catalog, prices, report));
  AddBreakEven(report);
  return report;
}

absl::StatusOr<MeasuredBaseline> ToMeasured(uint64_t clients, const DeviceAccount& device) {
  const ledger::Tco tco = ledger::CostOf({device});
  MeasuredBaseline measured;
  measured.clients = clients;
  measured.device_seconds = device.elapsed.seconds();
  measured.tokens = tco.tokens;
  const std::optional<double> per_mtok = tco.per_mtok_total();
  if (measured.tokens.tokens_out == 0 || measured.device_seconds <= 0 || !per_mtok.has_value()) {
    return absl::FailedPreconditionError(
        absl::StrCat("the baseline on ", device.device, " emitted ", measured.tokens.tokens_out,
                     " tokens in ", measured.device_seconds, " s of its time: nothing to compare"));
  }
  measured.output_tokens_per_s =
      static_cast<double>(measured.tokens.tokens_out) / measured.device_seconds;
  measured.tpot =
      Duration::FromSeconds(static_cast<double>(clients) / measured.output_tokens_per_s);
  measured.per_mtok = *per_mtok;
  return measured;
}

void UseMeasured(const MeasuredBaseline& measured, CostReport& report) {
  report.measured = measured;
  AddBreakEven(report);
}

}  // namespace tandem::ctl
