#include "scheduler/ledger/ledger.h"

#include <gtest/gtest.h>

#include "scheduler/base/random.h"

namespace tandem::ledger {
namespace {

constexpr Instant At(int64_t ns) { return Instant::FromNanoseconds(ns); }
constexpr Duration Ns(int64_t ns) { return Duration::Nanoseconds(ns); }

int64_t Of(const LedgerSnapshot& snapshot, LedgerStage stage, LedgerState state, Cause cause) {
  for (const LedgerCell& cell : snapshot.cells) {
    if (cell.stage == stage && cell.state == state && cell.cause == cause)
      return cell.time.nanoseconds();
  }
  return 0;
}

int64_t Stall(const LedgerSnapshot& snapshot, Cause cause) {
  return Of(snapshot, LedgerStage::kAttention, LedgerState::kStall, cause);
}

int64_t Sum(const LedgerSnapshot& snapshot) {
  int64_t sum = 0;
  for (const LedgerCell& cell : snapshot.cells) {
    EXPECT_GT(cell.time.nanoseconds(), 0);
    sum += cell.time.nanoseconds();
  }
  return sum;
}

// An attention device that has waited for a call since 1000 ns.
Ledger Waiting() {
  Ledger ledger(LedgerStage::kAttention, At(0));
  ledger.Enter(LedgerStage::kAttention, LedgerState::kBusy, Cause::kNone, At(100));
  ledger.Enter(LedgerStage::kAttention, LedgerState::kStall, Cause::kHandoff, At(1000));
  return ledger;
}

TEST(Ledger, TimeBeforeTheFirstEnterIsIdleStarting) {
  const LedgerSnapshot snapshot = Waiting().Snapshot(At(1000));
  EXPECT_EQ(Of(snapshot, LedgerStage::kAttention, LedgerState::kIdle, Cause::kStarting), 100);
  EXPECT_EQ(Of(snapshot, LedgerStage::kAttention, LedgerState::kBusy, Cause::kNone), 900);
  EXPECT_EQ(snapshot.elapsed, Ns(1000));
}

TEST(Ledger, SnapshotCountsTheRunningStateAndChangesNothing) {
  Ledger ledger = Waiting();
  EXPECT_EQ(Stall(ledger.Snapshot(At(1500)), Cause::kHandoff), 500);
  EXPECT_EQ(Stall(ledger.Snapshot(At(1500)), Cause::kHandoff), 500);
  EXPECT_EQ(Sum(ledger.Snapshot(At(1700))), 1700);
}

TEST(Ledger, IdleAndStallOfADeviceWithSeveralStagesAreShared) {
  Ledger ledger(LedgerStage::kShared, At(0));
  ledger.Enter(LedgerStage::kFfn, LedgerState::kBusy, Cause::kNone, At(0));
  ledger.Enter(LedgerStage::kFfn, LedgerState::kIdle, Cause::kNoWork, At(10));
  const LedgerSnapshot snapshot = ledger.Snapshot(At(30));
  EXPECT_EQ(Of(snapshot, LedgerStage::kFfn, LedgerState::kBusy, Cause::kNone), 10);
  EXPECT_EQ(Of(snapshot, LedgerStage::kShared, LedgerState::kIdle, Cause::kNoWork), 20);
}

TEST(Ledger, AWaitAsLongAsTheCallSplitsAsTheCallDid) {
  Ledger ledger = Waiting();
  ledger.BookExposedWait({Ns(1000), Ns(200), Ns(500)}, At(2000));
  const LedgerSnapshot snapshot = ledger.Snapshot(At(2000));
  EXPECT_EQ(Stall(snapshot, Cause::kHandoff), 300);
  EXPECT_EQ(Stall(snapshot, Cause::kPeerQueue), 200);
  EXPECT_EQ(Stall(snapshot, Cause::kPeerCompute), 500);
}

TEST(Ledger, AShorterWaitIsTheTailOfTheCall) {
  Ledger ledger = Waiting();
  // The last 400 ns of the call: the way back (150), then compute from its end.
  ledger.BookExposedWait({Ns(1000), Ns(200), Ns(500)}, At(1400));
  const LedgerSnapshot snapshot = ledger.Snapshot(At(1400));
  EXPECT_EQ(Stall(snapshot, Cause::kHandoff), 150);
  EXPECT_EQ(Stall(snapshot, Cause::kPeerCompute), 250);
  EXPECT_EQ(Stall(snapshot, Cause::kPeerQueue), 0);
}

TEST(Ledger, AWaitIntoTheQueueBooksTheQueuesTail) {
  Ledger ledger = Waiting();
  ledger.BookExposedWait({Ns(1000), Ns(200), Ns(500)}, At(1800));
  const LedgerSnapshot snapshot = ledger.Snapshot(At(1800));
  EXPECT_EQ(Stall(snapshot, Cause::kHandoff), 150);
  EXPECT_EQ(Stall(snapshot, Cause::kPeerCompute), 500);
  EXPECT_EQ(Stall(snapshot, Cause::kPeerQueue), 150);
}

TEST(Ledger, ALongerWaitBooksTheRestToTheCurrentState) {
  Ledger ledger(LedgerStage::kAttention, At(0));
  ledger.Enter(LedgerStage::kAttention, LedgerState::kStall, Cause::kBatchWait, At(0));
  ledger.BookExposedWait({Ns(1000), Ns(200), Ns(500)}, At(1700));
  const LedgerSnapshot snapshot = ledger.Snapshot(At(1700));
  EXPECT_EQ(Stall(snapshot, Cause::kBatchWait), 700);
  EXPECT_EQ(Stall(snapshot, Cause::kHandoff), 300);
  EXPECT_EQ(Sum(snapshot), 1700);
}

TEST(Ledger, APeersClockIsNeverBelievedPastTheRoundTrip) {
  Ledger ledger = Waiting();
  ledger.BookExposedWait({Ns(300), Ns(-5), Ns(900)}, At(1500));
  const LedgerSnapshot snapshot = ledger.Snapshot(At(1500));
  EXPECT_EQ(Stall(snapshot, Cause::kPeerCompute), 300);
  EXPECT_EQ(Stall(snapshot, Cause::kHandoff), 200);  // the state that it was in
  EXPECT_EQ(Sum(snapshot), 1500);
}

TEST(Ledger, AnOddHandoffLosesNoNanosecond) {
  Ledger ledger = Waiting();
  ledger.BookExposedWait({Ns(7), Ns(1), Ns(3)}, At(1007));
  EXPECT_EQ(Stall(ledger.Snapshot(At(1007)), Cause::kHandoff), 3);
}

// Goal: whatever is booked, the cells sum exactly to elapsed time, and none is negative.
TEST(Ledger, CellsSumToElapsedTimeExactly) {
  Random random(20261124);
  Ledger ledger(LedgerStage::kShared, At(0));
  constexpr Cause kStalls[] = {Cause::kHandoff, Cause::kPeerQueue, Cause::kPeerCompute,
                               Cause::kKvTransfer, Cause::kBatchWait};
  constexpr Cause kIdles[] = {Cause::kNoWork, Cause::kStarved, Cause::kStarting, Cause::kDraining,
                              Cause::kDown};
  int64_t now = 0;
  for (int i = 0; i < 20000; i++) {
    now += static_cast<int64_t>(random.Below(1000));
    const auto stage = static_cast<LedgerStage>(random.Below(3));
    switch (random.Below(4)) {
      case 0:
        ledger.Enter(stage, LedgerState::kBusy, Cause::kNone, At(now));
        break;
      case 1:
        ledger.Enter(stage, LedgerState::kStall, kStalls[random.Below(5)], At(now));
        break;
      case 2:
        ledger.Enter(stage, LedgerState::kIdle, kIdles[random.Below(5)], At(now));
        break;
      default: {
        const CallTimes call{Ns(random.Below(2000)), Ns(random.Below(900)), Ns(random.Below(900))};
        ledger.BookExposedWait(call, At(now));
      }
    }
    const LedgerSnapshot snapshot = ledger.Snapshot(At(now + 5));
    ASSERT_EQ(Sum(snapshot), now + 5);
    ASSERT_EQ(snapshot.elapsed, Ns(now + 5));
  }
}

TEST(Ledger, WordsAreThoseOfTheMetrics) {
  EXPECT_STREQ(ToString(LedgerStage::kShared), "shared");
  EXPECT_STREQ(ToString(LedgerState::kStall), "stall");
  EXPECT_STREQ(ToString(Cause::kPeerQueue), "peer_queue");
}

}  // namespace
}  // namespace tandem::ledger
