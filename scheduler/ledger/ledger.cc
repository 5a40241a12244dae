#include "scheduler/ledger/ledger.h"

#include <algorithm>

#include "scheduler/base/check.h"

namespace tandem::ledger {
namespace {

Duration NotNegative(Duration d) { return std::max(d, Duration()); }

// Takes up to `want` out of `left`.
Duration Take(Duration& left, Duration want) {
  const Duration taken = std::min(left, want);
  left -= taken;
  return taken;
}

}  // namespace

LedgerStage StageOf(const std::set<Stage>& stages) {
  if (stages.size() != 1) return LedgerStage::kShared;
  switch (*stages.begin()) {
    case Stage::kPrefill:
      return LedgerStage::kPrefill;
    case Stage::kAttention:
      return LedgerStage::kAttention;
    case Stage::kFfn:
      return LedgerStage::kFfn;
  }
  return LedgerStage::kShared;
}

const char* ToString(LedgerStage stage) {
  switch (stage) {
    case LedgerStage::kPrefill:
      return "prefill";
    case LedgerStage::kAttention:
      return "attention";
    case LedgerStage::kFfn:
      return "ffn";
    case LedgerStage::kShared:
      return "shared";
  }
  return "unknown";
}

const char* ToString(LedgerState state) {
  switch (state) {
    case LedgerState::kBusy:
      return "busy";
    case LedgerState::kStall:
      return "stall";
    case LedgerState::kIdle:
      return "idle";
  }
  return "unknown";
}

const char* ToString(Cause cause) {
  switch (cause) {
    case Cause::kNone:
      return "none";
    case Cause::kHandoff:
      return "handoff";
    case Cause::kPeerQueue:
      return "peer_queue";
    case Cause::kPeerCompute:
      return "peer_compute";
    case Cause::kKvTransfer:
      return "kv_transfer";
    case Cause::kBatchWait:
      return "batch_wait";
    case Cause::kNoWork:
      return "no_work";
    case Cause::kStarved:
      return "starved";
    case Cause::kStarting:
      return "starting";
    case Cause::kDraining:
      return "draining";
    case Cause::kDown:
      return "down";
  }
  return "unknown";
}

LedgerState StateOf(Cause cause) {
  if (cause == Cause::kNone) return LedgerState::kBusy;
  return cause <= Cause::kBatchWait ? LedgerState::kStall : LedgerState::kIdle;
}

std::optional<LedgerCell> CellOf(absl::string_view stage, absl::string_view state,
                                 absl::string_view cause) {
  for (int s = 0; s < kStages; s++) {
    for (int c = 0; c < kCauses; c++) {
      const LedgerCell cell{static_cast<LedgerStage>(s), StateOf(static_cast<Cause>(c)),
                            static_cast<Cause>(c), Duration()};
      if (cell.state == LedgerState::kBusy && cell.stage == LedgerStage::kShared) continue;
      const bool same_cause =
          ToString(cell.cause) == cause || (cell.cause == Cause::kNone && cause.empty());
      if (ToString(cell.stage) == stage && ToString(cell.state) == state && same_cause) return cell;
    }
  }
  return std::nullopt;
}

Ledger::Ledger(LedgerStage own_stage, Instant opened)
    : own_stage_(own_stage), opened_(opened), since_(opened), stage_(own_stage) {}

void Ledger::Book(LedgerStage stage, LedgerState state, Cause cause, Duration time) {
  TANDEM_CHECK(time >= Duration());
  books_.cell[static_cast<int>(stage)][static_cast<int>(state)][static_cast<int>(cause)] += time;
}

void Ledger::Enter(LedgerStage stage, LedgerState state, Cause cause, Instant now) {
  TANDEM_CHECK((state == LedgerState::kBusy) == (cause == Cause::kNone));
  Book(stage_, state_, cause_, now - since_);
  since_ = now;
  stage_ = state == LedgerState::kBusy ? stage : own_stage_;
  state_ = state;
  cause_ = cause;
}

void Ledger::BookExposedWait(const CallTimes& call, Instant now) {
  // A peer's own clock may say more than the round trip: what it computed is believed first, then
  // its queue.
  const Duration round_trip = NotNegative(call.round_trip);
  const Duration compute = std::min(NotNegative(call.peer_compute), round_trip);
  const Duration queue = std::min(NotNegative(call.peer_queue), round_trip - compute);
  const Duration handoff = round_trip - compute - queue;
  const Duration back = handoff / 2;

  Duration left = now - since_;
  TANDEM_CHECK(left >= Duration());
  since_ = now;
  Book(own_stage_, LedgerState::kStall, Cause::kHandoff, Take(left, back));
  Book(own_stage_, LedgerState::kStall, Cause::kPeerCompute, Take(left, compute));
  Book(own_stage_, LedgerState::kStall, Cause::kPeerQueue, Take(left, queue));
  Book(own_stage_, LedgerState::kStall, Cause::kHandoff, Take(left, handoff - back));
  Book(stage_, state_, cause_, left);
}

LedgerSnapshot Ledger::Snapshot(Instant now) const {
  Books books = books_;
  books.cell[static_cast<int>(stage_)][static_cast<int>(state_)][static_cast<int>(cause_)] +=
      now - since_;
  LedgerSnapshot snapshot;
  snapshot.elapsed = now - opened_;
  for (int stage = 0; stage < kStages; stage++) {
    for (int state = 0; state < kStates; state++) {
      for (int cause = 0; cause < kCauses; cause++) {
        const Duration time = books.cell[stage][state][cause];
        if (time == Duration()) continue;
        snapshot.cells.push_back({static_cast<LedgerStage>(stage), static_cast<LedgerState>(state),
                                  static_cast<Cause>(cause), time});
      }
    }
  }
  return snapshot;
}

}  // namespace tandem::ledger
