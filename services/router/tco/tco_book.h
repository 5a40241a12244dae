#pragma once

// The accounts of all workers' devices: what each heartbeat said, for an hour, and what a lost
// device costs until it is back.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "scheduler/base/ids.h"
#include "scheduler/ledger/history.h"
#include "scheduler/ledger/price.h"
#include "services/router/tco/cost_metrics.h"
#include "services/runtime/mutex.h"
#include "tandem/v1/registry.pb.h"

namespace tandem::router {

// Safe from any thread. Holds at most `max_workers` workers, lost ones included.
class TcoBook {
 public:
  // `prices` go before what workers register. `registry` outlives the book.
  TcoBook(ledger::PriceList prices, size_t max_workers, prometheus::Registry& registry);

  // An accepted registration. `stream` tells two streams of one worker apart: what an older one
  // says no longer counts. A worker that comes back as the device that it was keeps its history; as
  // another it starts anew.
  void Add(uint64_t stream, const v1::Registration& registration, Instant now);
  // A heartbeat's account; one that cannot be true is refused, counted and told, and changes
  // nothing else. A heartbeat without a ledger is none.
  void Update(const WorkerId& worker, uint64_t stream, const v1::Heartbeat& heartbeat, Instant now);
  // The stream ended. If the worker's last word was that it drains, it was taken away and costs
  // nothing any more; else its device is idle{down} until it is back, an hour at most.
  void Remove(const WorkerId& worker, uint64_t stream);

  // By ascending worker id, those of which the window that ends at `now` knows something.
  // kUnavailable, with the numbers: no worker's.
  absl::StatusOr<std::vector<ledger::DeviceAccount>> Over(Duration window, Instant now);

  // Counts what lost devices cost until `now`; before the metrics are read.
  void BookDown(Instant now);

  struct Refusals {
    uint64_t count = 0;
    std::string last;  // "worker w: ..."
  };
  Refusals refusals() const;

 private:
  struct Slot {
    uint64_t stream = 0;  // 0: none is open
    uint64_t incarnation = 0;
    bool draining = false;
    bool refused = false;          // something of this stream, and it was logged
    ledger::DeviceAccount device;  // but for what a window decides
    ledger::LedgerStage own_stage = ledger::LedgerStage::kShared;
    ledger::DeviceHistory history;
    // What the metrics have of it: its newest ledger, and until when.
    std::optional<ledger::LedgerSnapshot> counted;
    Instant counted_until;
  };

  void ForgetOld(Instant now) TANDEM_REQUIRES(mu_);
  // For one more; what was lost longest ago goes.
  void MakeRoom() TANDEM_REQUIRES(mu_);
  void Refuse(const WorkerId& worker, Slot& slot, const absl::Status& why) TANDEM_REQUIRES(mu_);
  void Count(Slot& slot, const ledger::LedgerSnapshot& ledger, Instant now) TANDEM_REQUIRES(mu_);
  void CountDown(Slot& slot, Instant now) TANDEM_REQUIRES(mu_);
  void TellPools() TANDEM_REQUIRES(mu_);

  const ledger::PriceList prices_;
  const size_t max_workers_;
  mutable Mutex mu_;
  CostMetrics metrics_ TANDEM_GUARDED_BY(mu_);
  std::map<WorkerId, Slot> slots_ TANDEM_GUARDED_BY(mu_);
  Refusals refusals_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::router
