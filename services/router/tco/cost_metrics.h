#pragma once

// tandem_cost_*: dollars as they are spent. Where devices are emulated, seconds and dollars are of
// their time; tandem_cost_time_scale says so.

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/registry.h>

#include <string>
#include <vector>

#include "scheduler/ledger/tco.h"
#include "services/runtime/label_cap.h"

namespace tandem::router {

// Pools that have series of their own; what later ones cost counts as pool "other".
inline constexpr size_t kMaxPoolSeries = 64;

// Not thread-safe, but for the registry's reading.
class CostMetrics {
 public:
  explicit CostMetrics(prometheus::Registry& registry);  // outlives this

  // These device seconds passed on a device of the pool. Stages are the ledger's: a device with
  // several stages waits under `shared`.
  void Count(const std::string& pool, const std::vector<ledger::LedgerCell>& cells,
             const ledger::Price& price);
  void CountRefused() { refused_.Increment(); }
  // A pool's newest: whether each of its devices has a price, and its time scale.
  void SetPool(const std::string& pool, bool price_known, double time_scale);

 private:
  prometheus::Family<prometheus::Counter>& dollars_;    // by pool, stage, state
  prometheus::Family<prometheus::Counter>& unpriced_;   // by pool
  prometheus::Family<prometheus::Gauge>& price_known_;  // by pool
  prometheus::Family<prometheus::Gauge>& time_scale_;   // by pool
  prometheus::Counter& refused_;
  LabelCap pools_{kMaxPoolSeries};
};

}  // namespace tandem::router
