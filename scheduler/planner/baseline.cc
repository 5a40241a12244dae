#include "scheduler/planner/baseline.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/strip.h>

#include <algorithm>
#include <optional>
#include <set>
#include <utility>

#include "scheduler/base/status.h"

namespace tandem::planner {
namespace {

using model::Catalog;
using model::Device;

constexpr absl::string_view kColocated = "-colocated";
constexpr double kMillion = 1e6, kSecondsPerHour = 3600;

// "h100-sxm" and "h100-x8" of h100-sxm: what may stand before -colocated.
absl::Status Unknown(const Catalog& catalog, const std::string& name, absl::string_view why) {
  std::vector<std::string> some;
  for (const std::string& device : catalog.DeviceNames()) some.push_back(device + "-colocated");
  constexpr size_t kShown = 8;
  const size_t all = some.size() + catalog.ChipNames().size();
  some.resize(std::min(some.size(), kShown));
  return absl::InvalidArgumentError(absl::StrCat(
      "baseline '", name, "': ", why, "; there are DEVICE-colocated and CHIP-colocated (", all,
      " of the catalog), such as h100-colocated, ", absl::StrJoin(some, ", ")));
}

// The devices that a baseline's name allows, the smallest first.
absl::StatusOr<std::vector<Device>> Candidates(const Catalog& catalog, const std::string& name) {
  absl::string_view stem = name;
  if (!absl::ConsumeSuffix(&stem, kColocated) || stem.empty())
    return Unknown(catalog, name, "its name does not end in -colocated");
  std::vector<Device> devices;
  std::set<std::string> chips;
  std::vector<std::string> names = catalog.DeviceNames();
  for (const std::string& chip : catalog.ChipNames()) names.push_back(chip);
  for (const std::string& each : names) {
    ASSIGN_OR_RETURN(Device device, catalog.FindDevice(each));
    if (device.name == stem && device.name != device.chip.name)
      return std::vector<Device>{std::move(device)};
    if (device.chip.name != stem && !absl::StartsWith(device.chip.name, absl::StrCat(stem, "-")))
      continue;
    chips.insert(device.chip.name);
    devices.push_back(std::move(device));
  }
  if (chips.size() > 1)
    return Unknown(catalog, name, absl::StrCat("it may be ", absl::StrJoin(chips, " or ")));
  if (devices.empty()) return Unknown(catalog, name, "no such device or chip");
  std::stable_sort(devices.begin(), devices.end(),
                   [](const Device& a, const Device& b) { return a.count < b.count; });
  return devices;
}

// The most sequences, up to `most`, whose time per token is within the SLO; 0: not one is.
uint64_t LargestBatch(const cost::CostTable& table, const cost::RequestShape& request,
                      Duration slo_tpot, uint64_t most) {
  uint64_t good = 0, bad = most + 1;
  while (bad - good > 1) {
    const uint64_t middle = good + (bad - good) / 2;
    (cost::TimePerOutputToken(table, middle, request) <= slo_tpot ? good : bad) = middle;
  }
  return good;
}

std::string Milliseconds(Duration time) { return absl::StrCat(time.seconds() * 1e3, " ms"); }

// The forecast on this device but for money; or why it is no baseline.
absl::StatusOr<BaselineForecast> Forecast(const cost::CostTable& table, const BaselineLoad& load,
                                          const ServiceObjective& slo) {
  BaselineForecast forecast;
  forecast.device = table.device().name;
  const auto cannot = [&](const auto&... why) {
    return absl::FailedPreconditionError(absl::StrCat(forecast.device, ": ", why...));
  };
  forecast.batch_that_fits = cost::BatchThatFits(table, load.request);
  if (forecast.batch_that_fits == 0)
    return cannot("does not hold ", load.model_shape, " and one sequence of ",
                  load.request.prompt_tokens, " + ", load.request.output_tokens, " tokens");
  forecast.prefill = table.Prefill(0, load.request.prompt_tokens);
  if (forecast.prefill > slo.ttft)
    return cannot("the prefill of ", load.request.prompt_tokens, " tokens takes ",
                  Milliseconds(forecast.prefill), ", the SLO's TTFT is ", Milliseconds(slo.ttft));
  forecast.batch = LargestBatch(table, load.request, slo.tpot, forecast.batch_that_fits);
  if (forecast.batch == 0)
    return cannot("one sequence takes ",
                  Milliseconds(cost::TimePerOutputToken(table, 1, load.request)),
                  " per token, the SLO's TPOT is ", Milliseconds(slo.tpot));
  forecast.tpot = cost::TimePerOutputToken(table, forecast.batch, load.request);
  forecast.output_tokens_per_s =
      static_cast<double>(forecast.batch) / std::max(forecast.tpot.seconds(), 1e-9);
  forecast.devices = load.output_tokens_per_s / forecast.output_tokens_per_s;
  return forecast;
}

absl::Status AddMoney(const Device& device, const ledger::PriceList& prices,
                      const cost::RequestShape& request, BaselineForecast& forecast) {
  forecast.price = prices.PriceOf(/*pool=*/"", device.name, ledger::CatalogPrice(device));
  if (!forecast.price.known()) {
    return absl::FailedPreconditionError(
        absl::StrCat("baseline on ", device.name, ": its price is unknown (",
                     forecast.price.dollars_per_hour.source, "); give one in a prices file"));
  }
  const double tokens = static_cast<double>(request.prompt_tokens + request.output_tokens) /
                        static_cast<double>(request.output_tokens);
  forecast.per_mtok = forecast.price.dollars_per_hour.value * kMillion /
                      (kSecondsPerHour * forecast.output_tokens_per_s * tokens);
  forecast.inputs = forecast.price.inputs;
  return absl::OkStatus();
}

// What decides a step's time on this chip.
void AddFigures(const Device& device, model::Dtype weights, std::vector<ledger::Input>& inputs) {
  const auto add = [&](absl::string_view what, const model::Figure& figure) {
    inputs.push_back({absl::StrCat(what, " of ", device.chip.name), figure});
  };
  add("bandwidth, bytes/s,", device.chip.bandwidth_bytes_per_s);
  const auto found = device.chip.dtypes.find(weights);
  if (found == device.chip.dtypes.end()) return;
  const std::string dtype = absl::StrCat(model::DtypeName(weights), ",");
  add(absl::StrCat("peak flop/s, ", dtype), found->second.peak_flops);
  add(absl::StrCat("bandwidth efficiency, ", dtype), found->second.bandwidth_efficiency);
  add(absl::StrCat("compute efficiency, ", dtype), found->second.compute_efficiency);
  add(absl::StrCat("fixed time of a layer, s, ", dtype), device.LayerSeconds(weights));
}

}  // namespace

absl::StatusOr<model::Engine> FindEngine(const Catalog& catalog, const std::string& name) {
  model::Engine none = model::NoEngine();
  if (name == none.name) return none;
  auto engine = catalog.FindEngine(name);
  if (engine.ok()) return engine;
  return absl::InvalidArgumentError(absl::StrCat("engine '", name, "' is neither ", none.name,
                                                 " nor one of ",
                                                 absl::StrJoin(catalog.EngineNames(), ", ")));
}

absl::Status CheckBaseline(const Catalog& catalog, const std::string& name) {
  return Candidates(catalog, name).status();
}

absl::StatusOr<BaselineForecast> ForecastBaseline(const Catalog& catalog,
                                                  const ledger::PriceList& prices,
                                                  const std::string& name, const BaselineLoad& load,
                                                  const ServiceObjective& slo,
                                                  const model::Engine& engine) {
  ASSIGN_OR_RETURN(const std::vector<Device> candidates, Candidates(catalog, name));
  if (load.request.output_tokens == 0 || !(load.output_tokens_per_s > 0)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "baseline '", name, "': a load of ", load.request.output_tokens,
        " output tokens a request, ", load.output_tokens_per_s, " a second, is none to forecast"));
  }
  const auto shape = catalog.FindModel(load.model_shape);
  if (!shape.ok()) return absl::InvalidArgumentError(shape.status().message());
  cost::CostOptions options;
  options.precision = cost::PrecisionOf(engine, load.weights);
  absl::Status why_not;  // of the last: the largest
  std::optional<BaselineForecast> cheapest;
  for (const Device& device : candidates) {
    options.engine =
        cost::ConstantsOf(engine, /*version=*/"", device.chip.name, load.weights, shape->name);
    ASSIGN_OR_RETURN(const cost::CostTable table, cost::CostTable::Create(device, *shape, options));
    absl::StatusOr<BaselineForecast> forecast = Forecast(table, load, slo);
    if (forecast.ok()) {
      const absl::Status priced = AddMoney(device, prices, load.request, *forecast);
      if (!priced.ok()) forecast = priced;
    }
    if (!forecast.ok()) {
      why_not = forecast.status();
    } else if (!cheapest.has_value() || forecast->per_mtok < cheapest->per_mtok) {
      AddFigures(device, load.weights, forecast->inputs);
      cheapest = *std::move(forecast);
    }
  }
  if (cheapest.has_value()) return *std::move(cheapest);
  return absl::FailedPreconditionError(absl::StrCat("baseline '", name, "': ", why_not.message()));
}

}  // namespace tandem::planner
