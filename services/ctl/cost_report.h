#pragma once

// What `tandemctl tco` says: cost by pool and stage, the baseline's forecast, and at which price
// and occupancy the specialists pay.

#include <absl/status/statusor.h>
#include <boost/json/value.hpp>

#include <optional>
#include <string>
#include <vector>

#include "scheduler/ledger/break_even.h"
#include "scheduler/ledger/tco.h"
#include "scheduler/model/catalog.h"
#include "scheduler/planner/baseline.h"

namespace tandem::ctl {

// What the user asks for.
struct CostQuestion {
  Duration window = Duration::Seconds(60);
  std::string baseline = "h100-colocated";
  std::string engine = "vllm";       // that the baseline runs; planner::FindEngine
  std::string specialist = "sram";   // a pool, or a memory class: its pools
  std::string model_shape, weights;  // empty: as the workers registered
  planner::ServiceObjective slo;
};

struct CostReport {
  CostQuestion question;
  std::vector<ledger::DeviceAccount> devices;
  ledger::Tco tco;
  planner::BaselineLoad load;
  std::optional<planner::BaselineForecast> baseline;
  std::string why_no_baseline;  // when there is none
  ledger::SpecialistView specialist;
  // Against the baseline's forecast, and at the ends of its band.
  ledger::BreakEven price, price_low, price_high, occupancy, occupancy_low, occupancy_high;
};

// Sets the prices that `prices` has in place of the workers'.
void ApplyPrices(const ledger::PriceList& prices, std::vector<ledger::DeviceAccount>& devices);

// `devices`: of one window, prices applied. kInvalidArgument: an unknown baseline, engine, model,
// number format or specialist; a baseline that cannot carry the load, or that has no price, is
// reported.
absl::StatusOr<CostReport> MakeCostReport(std::vector<ledger::DeviceAccount> devices,
                                          const CostQuestion& question,
                                          const model::Catalog& catalog,
                                          const ledger::PriceList& prices);

// One screen of 100 columns, ended by a line break; and the same with every cell of every device.
std::string CostText(const CostReport& report);
boost::json::object CostJson(const CostReport& report);

}  // namespace tandem::ctl
