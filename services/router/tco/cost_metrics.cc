#include "services/router/tco/cost_metrics.h"

namespace tandem::router {
namespace {

constexpr double kSecondsPerHour = 3600;

}  // namespace

CostMetrics::CostMetrics(prometheus::Registry& registry)
    : dollars_(prometheus::BuildCounter()
                   .Name("tandem_cost_dollars_total")
                   .Help("Dollars of device time since each worker's first heartbeat, by the "
                         "ledger's stage and state; state idle is the cost of idle.")
                   .Register(registry)),
      unpriced_(prometheus::BuildCounter()
                    .Name("tandem_cost_unpriced_seconds_total")
                    .Help("Device seconds of devices whose price is unknown.")
                    .Register(registry)),
      price_known_(prometheus::BuildGauge()
                       .Name("tandem_cost_price_known")
                       .Help("1 when every device of the pool has a price.")
                       .Register(registry)),
      time_scale_(
          prometheus::BuildGauge()
              .Name("tandem_cost_time_scale")
              .Help("Machine seconds for one of the pool's emulated devices'; 0: real time.")
              .Register(registry)),
      refused_(prometheus::BuildCounter()
                   .Name("tandem_cost_ledgers_refused_total")
                   .Help("Heartbeats whose account of device time could not be true.")
                   .Register(registry)
                   .Add({})) {}

void CostMetrics::Count(const std::string& pool, const std::vector<ledger::LedgerCell>& cells,
                        const ledger::Price& price) {
  const std::string label = pools_.Of(pool);
  for (const ledger::LedgerCell& cell : cells) {
    const double seconds = cell.time.seconds();
    if (!price.known()) {
      unpriced_.Add({{"pool", label}}).Increment(seconds);
      continue;
    }
    dollars_
        .Add({{"pool", label},
              {"stage", ledger::ToString(cell.stage)},
              {"state", ledger::ToString(cell.state)}})
        .Increment(seconds * price.dollars_per_hour.value / kSecondsPerHour);
  }
}

void CostMetrics::SetPool(const std::string& pool, bool price_known, double time_scale) {
  const std::string label = pools_.Of(pool);
  unpriced_.Add({{"pool", label}});  // a series from the start, so that its first second is seen
  price_known_.Add({{"pool", label}}).Set(price_known ? 1 : 0);
  time_scale_.Add({{"pool", label}}).Set(time_scale);
}

}  // namespace tandem::router
