#pragma once

// What each worker last said of itself, word for word: the ledger and the gauges that the
// controller does not read and `tandemctl status` shows.

#include <cstdint>
#include <map>
#include <optional>

#include "scheduler/base/ids.h"
#include "services/runtime/mutex.h"
#include "tandem/v1/registry.pb.h"

namespace tandem::router {

// Safe from any thread. Holds one entry for each worker whose registration was accepted.
class WorkerBook {
 public:
  struct Entry {
    v1::Registration registration;  // without `live`
    v1::Heartbeat heartbeat;        // the newest; empty before the first
  };

  // `stream` tells two streams of one worker apart: what an older one says no longer counts.
  void Add(uint64_t stream, v1::Registration registration);
  void Update(const WorkerId& worker, uint64_t stream, const v1::Heartbeat& heartbeat);
  void Remove(const WorkerId& worker, uint64_t stream);
  // nullopt: not in the book, or another incarnation is.
  std::optional<Entry> Find(const WorkerId& worker, uint64_t incarnation) const;

 private:
  struct Slot {
    uint64_t stream = 0;
    Entry entry;
  };
  mutable Mutex mu_;
  std::map<WorkerId, Slot> slots_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::router
