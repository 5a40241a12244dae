#pragma once

// What one device tells of itself while it runs: its ledger and its report, and to its trace when
// it waited. The device's thread writes, anyone reads.

#include <optional>
#include <utility>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/ledger/ledger.h"
#include "services/runtime/mutex.h"
#include "workers/backend/device_timeline.h"
#include "workers/connector/ports.h"
#include "workers/trace/trace_log.h"

namespace tandem {

class DeviceBooks {
 public:
  // The device is idle{starting} until the first Enter. `line`, `trace`: the device's.
  DeviceBooks(ledger::LedgerStage own_stage, const TimeSource& time, const DeviceTimeline& line,
              TraceLog& trace);

  void EnterBusy(ledger::LedgerStage stage) TANDEM_EXCLUDES(mu_);
  void EnterWait(ledger::LedgerState state, ledger::Cause cause) TANDEM_EXCLUDES(mu_);
  // A layer call's reply came. If the device was waiting for replies, its wait is booked to the
  // call's causes. Times are the device's.
  void OnReply(const ledger::CallTimes& call) TANDEM_EXCLUDES(mu_);

  // All but `ledger`, which Report fills, and `live`.
  void Publish(WorkerReport report) TANDEM_EXCLUDES(mu_);
  void PublishLive(std::vector<SequenceKey> live) TANDEM_EXCLUDES(mu_);
  WorkerReport Report() const TANDEM_EXCLUDES(mu_);
  // When the ledger's time began: the machine's time that the device's line showed then. An
  // emulated line is older than its engine.
  Instant opened() const { return opened_; }
  // The wait that the device is in, until now; nullopt: it computes.
  std::optional<Span> OpenWait() const TANDEM_EXCLUDES(mu_);

 private:
  // What the device's own clock shows, for the device's thread, and what the machine's does, for
  // readers; both in the device's seconds. Under the lock, so that no reader's time is older than a
  // writer's.
  Instant DeviceNow() const TANDEM_REQUIRES(mu_);
  Instant Now() const TANDEM_REQUIRES(mu_);
  Instant OfDevice(Instant machine) const;
  // The device leaves its state for that one, now.
  void Enter(ledger::LedgerStage stage, ledger::LedgerState state, ledger::Cause cause)
      TANDEM_REQUIRES(mu_);
  std::optional<Span> WaitUntil(Instant end) const TANDEM_REQUIRES(mu_);

  const TimeSource& time_;
  const DeviceTimeline& line_;
  TraceLog& trace_;
  const Instant opened_;  // the machine's
  mutable Mutex mu_;
  ledger::Ledger ledger_ TANDEM_GUARDED_BY(mu_);
  std::pair<ledger::LedgerState, ledger::Cause> state_ TANDEM_GUARDED_BY(mu_);
  Instant since_ TANDEM_GUARDED_BY(mu_);  // of state_; the line's
  ledger::LedgerStage busy_stage_ TANDEM_GUARDED_BY(mu_);
  WorkerReport report_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem
