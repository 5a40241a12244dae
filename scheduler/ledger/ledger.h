#pragma once

// The account of one device's time: disjoint states that add up to elapsed time. PROTOCOL
// section 7.

#include <absl/strings/string_view.h>

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/view/worker.h"

namespace tandem::ledger {

enum class LedgerStage {
  kPrefill,
  kAttention,
  kFfn,
  kShared
};  // a device with several stages books idle and stall as shared
enum class LedgerState { kBusy, kStall, kIdle };
enum class Cause {
  kNone,  // busy
  kHandoff,
  kPeerQueue,
  kPeerCompute,
  kKvTransfer,
  kBatchWait,  // stall, in order of precedence
  kNoWork,
  kStarved,
  kStarting,
  kDraining,
  kDown,  // idle
};
inline constexpr int kStages = 4, kStates = 3, kCauses = 11;  // of the enums above

// A cause belongs to one state.
LedgerState StateOf(Cause cause);

// What a device that runs these stages is when none of them asks for it; kShared for several.
LedgerStage StageOf(const std::set<Stage>& stages);

// "prefill", "busy", "peer_queue": the words of the metrics.
const char* ToString(LedgerStage stage);
const char* ToString(LedgerState state);
const char* ToString(Cause cause);

struct LedgerCell {
  LedgerStage stage = LedgerStage::kShared;
  LedgerState state = LedgerState::kIdle;
  Cause cause = Cause::kStarting;
  Duration time;
};

// The cell of these words, without time; `cause` is empty or "none" when busy. nullopt: they name
// no cell of any device.
std::optional<LedgerCell> CellOf(absl::string_view stage, absl::string_view state,
                                 absl::string_view cause);

// Cumulative since the ledger was opened; cells with time only, in enum order.
struct LedgerSnapshot {
  std::vector<LedgerCell> cells;
  Duration elapsed;  // by the caller's clock, not by the cells: their sum is checked against it
};

// How an exposed wait on a call splits: the call's own account of itself.
struct CallTimes {
  Duration round_trip;                // send to reply, at the attention worker
  Duration peer_queue, peer_compute;  // as the reply carries them
};

// One device's books. Every nanosecond from `opened` on is in exactly one cell. Not thread-safe.
class Ledger {
 public:
  // `own_stage` takes idle and stall: the single stage of the device, or kShared.
  Ledger(LedgerStage own_stage, Instant opened);

  // From now on the device is in this state. The time since the last call is booked to the state
  // that it was in. `stage` counts with kBusy only; `cause` is kNone with kBusy and only then.
  void Enter(LedgerStage stage, LedgerState state, Cause cause, Instant now);
  // The device waited since the last Enter for a call that just ended: books that time as the tail
  // of the call, filled from its end with half the hand-off, peer compute, peer queue, the other
  // half of the hand-off (PROTOCOL section 7). A wait longer than the round trip books the rest to
  // the current state. The state stays as it was.
  void BookExposedWait(const CallTimes& call, Instant now);

  LedgerSnapshot Snapshot(Instant now) const;

 private:
  struct Books {
    Duration cell[kStages][kStates][kCauses] = {};
  };
  void Book(LedgerStage stage, LedgerState state, Cause cause, Duration time);
  LedgerStage own_stage_;
  Instant opened_, since_;
  LedgerStage stage_;
  LedgerState state_ = LedgerState::kIdle;
  Cause cause_ = Cause::kStarting;
  Books books_;
};

}  // namespace tandem::ledger
