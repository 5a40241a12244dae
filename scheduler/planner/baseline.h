#pragma once

// The baseline of a comparison: what a load would cost on one kind of device that serves it alone,
// prompts, attention and FFN together. A forecast of the cost model, not a measurement.

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/cost/colocated.h"
#include "scheduler/cost/cost_table.h"
#include "scheduler/ledger/price.h"
#include "scheduler/model/catalog.h"

namespace tandem::planner {

// Median error of the cost model's time per output token, on configurations that its fit has not
// seen: the band of every forecast here. Source: tests/bench/RESULTS.md, truth.
inline constexpr double kTpotMedianError = 0.063;

struct ServiceObjective {
  Duration tpot, ttft;  // of the device's time
};

// What is to be served, and in which form of the model.
struct BaselineLoad {
  cost::RequestShape request;      // the mean of what was served
  double output_tokens_per_s = 0;  // served, above 0
  std::string model_shape;         // of the catalog
  model::Dtype weights = model::Dtype::kBf16;
};

struct BaselineForecast {
  std::string device;              // the cheapest group that holds the model and meets the SLO
  uint64_t batch = 0;              // sequences on one device: the most that fit and meet the SLO
  uint64_t batch_that_fits = 0;    // its KV allows
  Duration tpot;                   // at `batch`
  Duration prefill;                // of one prompt alone: TTFT is no shorter
  double output_tokens_per_s = 0;  // of one device
  double devices = 0;              // that carry the load, fully used: a fraction counts as one
  ledger::Price price;             // of one device
  double per_mtok = 0;  // $ per million tokens, in and out, of devices that are fully used
  // The band of kTpotMedianError around it; half of unseen configurations fall outside.
  double per_mtok_low() const { return per_mtok * (1 - kTpotMedianError); }
  double per_mtok_high() const { return per_mtok * (1 + kTpotMedianError); }
  std::vector<ledger::Input> inputs;  // what it depends on: prices, and the device's figures
};

// By name: one of the catalog, such as "vllm", or "none" (model::NoEngine). kInvalidArgument lists
// the names.
absl::StatusOr<model::Engine> FindEngine(const model::Catalog& catalog, const std::string& name);

// Whether `name` names a baseline, as ForecastBaseline would say.
absl::Status CheckBaseline(const model::Catalog& catalog, const std::string& name);

// `name` is DEVICE-colocated or CHIP-colocated: "h100-x8-colocated", or "h100-colocated", which
// takes the group of that chip whose tokens are cheapest, of those that hold the model and meet the
// SLO; the smaller of equals.
// Prices are `prices`', else the catalog's. kInvalidArgument: no such baseline (lists some), model
// or number format, or a load without tokens; kFailedPrecondition: no group of the chip holds the
// model or meets the SLO, or the price is unknown.
absl::StatusOr<BaselineForecast> ForecastBaseline(const model::Catalog& catalog,
                                                  const ledger::PriceList& prices,
                                                  const std::string& name, const BaselineLoad& load,
                                                  const ServiceObjective& slo,
                                                  const model::Engine& engine);

}  // namespace tandem::planner
