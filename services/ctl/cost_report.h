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

// The baseline as one emulated device of its kind ran it (measure_baseline.h).
struct MeasuredBaseline {
  uint64_t clients = 0;        // each with one request at a time
  double device_seconds = 0;   // measured, all clients decoding
  ledger::TokenCounts tokens;  // served in them
  Duration tpot;               // mean of device time between two tokens of a client
  double output_tokens_per_s = 0;
  double per_mtok = 0;  // $ per million tokens, in and out
};

struct CostReport {
  CostQuestion question;
  std::vector<ledger::DeviceAccount> devices;
  ledger::Tco tco;
  planner::BaselineLoad load;
  std::optional<planner::BaselineForecast> baseline;
  std::string why_no_baseline;               // when there is none
  std::optional<MeasuredBaseline> measured;  // then it is what break-even is against
  ledger::SpecialistView specialist;
  // Against the baseline measured; else its forecast, and the ends of its band.
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

// `device`: of the measured time, with its price. kFailedPrecondition: it served nothing.
absl::StatusOr<MeasuredBaseline> ToMeasured(uint64_t clients, const ledger::DeviceAccount& device);
// Break-even of a report that has a baseline, against what was measured of it.
void UseMeasured(const MeasuredBaseline& measured, CostReport& report);

// Three digits, without a fraction from 100 on: "$24.9", "$281".
std::string Money(double dollars);

// One screen of 100 columns, ended by a line break; and the same with every cell of every device.
std::string CostText(const CostReport& report);
boost::json::object CostJson(const CostReport& report);

}  // namespace tandem::ctl
