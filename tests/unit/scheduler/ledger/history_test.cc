#include "scheduler/ledger/history.h"

#include <absl/strings/match.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/ledger/accounts.h"

namespace tandem::ledger {
namespace {

Instant At(double seconds) { return Instant() + Duration::FromSeconds(1000 + seconds); }

// An FFN device that was started `elapsed` ago and busy for half of it.
LedgerReport HalfBusy(double elapsed, uint64_t tokens_out = 0) {
  LedgerReport report;
  report.ledger.elapsed = Duration::FromSeconds(elapsed);
  report.ledger.cells = {Cell(LedgerStage::kFfn, Cause::kNone, elapsed / 2),
                         Cell(LedgerStage::kFfn, Cause::kNoWork, elapsed / 2)};
  report.tokens = {0, 0, tokens_out};
  return report;
}

double SecondsOf(const WindowAccount& account, Cause cause) {
  double sum = 0;
  for (const LedgerCell& cell : account.cells) {
    if (cell.cause == cause) sum += cell.time.seconds();
  }
  return sum;
}

DeviceHistory Ffn(double time_scale = 0) { return {LedgerStage::kFfn, time_scale}; }

TEST(DeviceHistory, AWindowIsTheDifferenceOfTwoSamples) {
  DeviceHistory history = Ffn();
  for (int second = 0; second <= 100; second++)
    ASSERT_TRUE(
        history.Add(7, HalfBusy(5000 + second, 10 * static_cast<uint64_t>(second)), At(second))
            .ok());
  const auto account = history.Over(At(40), At(100.5));
  ASSERT_TRUE(account.has_value());
  EXPECT_DOUBLE_EQ(account->elapsed.seconds(), 60);
  EXPECT_DOUBLE_EQ(account->wall.seconds(), 60);
  EXPECT_DOUBLE_EQ(SecondsOf(*account, Cause::kNone), 30);
  EXPECT_EQ(account->tokens.tokens_out, 600u);
  // Longer than what is known: from the first sample on, not from 5,000 s ago.
  EXPECT_DOUBLE_EQ(history.Over(At(-900), At(100.5))->elapsed.seconds(), 100);
}

TEST(DeviceHistory, AWorkerThatStartedWithinTheWindowCountsFromItsStart) {
  DeviceHistory history = Ffn();
  ASSERT_TRUE(history.Add(7, HalfBusy(4), At(10)).ok());
  ASSERT_TRUE(history.Add(7, HalfBusy(8), At(14)).ok());
  const auto account = history.Over(At(0), At(14));
  EXPECT_DOUBLE_EQ(account->elapsed.seconds(), 8);
  EXPECT_DOUBLE_EQ(account->wall.seconds(), 8);
}

TEST(DeviceHistory, NothingIsKnownOfAWindowWithoutSamples) {
  DeviceHistory history = Ffn();
  EXPECT_FALSE(history.Over(At(0), At(10)).has_value());
  ASSERT_TRUE(history.Add(7, HalfBusy(5000), At(5)).ok());
  EXPECT_FALSE(history.Over(At(0), At(10)).has_value());  // one sample of a long life
  EXPECT_FALSE(history.Over(At(6), At(10)).has_value());
}

TEST(DeviceHistory, ANewIncarnationStartsItsCountersAnewAndTheGapIsDown) {
  DeviceHistory history = Ffn();
  for (int second = 0; second <= 10; second++)
    ASSERT_TRUE(history.Add(7, HalfBusy(500 + second, 100), At(second)).ok());
  history.OnGone(/*for_good=*/false);
  EXPECT_TRUE(history.lost());
  // Seen as down while it is away, and after it is back: its new process opened 2 s before it
  // spoke.
  EXPECT_DOUBLE_EQ(SecondsOf(*history.Over(At(0), At(14)), Cause::kDown), 4);
  ASSERT_TRUE(history.Add(8, HalfBusy(2, 3), At(20)).ok());
  EXPECT_FALSE(history.lost());
  ASSERT_TRUE(history.Add(8, HalfBusy(7, 5), At(25)).ok());
  const auto account = history.Over(At(0), At(25));
  EXPECT_DOUBLE_EQ(SecondsOf(*account, Cause::kDown), 8);
  EXPECT_DOUBLE_EQ(account->elapsed.seconds(), 10 + 8 + 7);
  EXPECT_DOUBLE_EQ(account->wall.seconds(), 25);
  EXPECT_EQ(account->tokens.tokens_out, 5u);
}

TEST(DeviceHistory, ADeviceThatDrainedCostsNothingAfterwards) {
  DeviceHistory history = Ffn();
  ASSERT_TRUE(history.Add(7, HalfBusy(500), At(0)).ok());
  ASSERT_TRUE(history.Add(7, HalfBusy(510), At(10)).ok());
  history.OnGone(/*for_good=*/true);
  EXPECT_DOUBLE_EQ(history.Over(At(0), At(30))->elapsed.seconds(), 10);
  ASSERT_TRUE(history.Add(8, HalfBusy(1), At(40)).ok());
  EXPECT_DOUBLE_EQ(SecondsOf(*history.Over(At(0), At(40)), Cause::kDown), 0);
  EXPECT_DOUBLE_EQ(history.Over(At(0), At(40))->elapsed.seconds(), 11);
}

TEST(DeviceHistory, TheSameIncarnationGoesOnWhereItWas) {
  DeviceHistory history = Ffn();
  ASSERT_TRUE(history.Add(7, HalfBusy(500), At(0)).ok());
  history.OnGone(false);  // its network was cut, not its life
  ASSERT_TRUE(history.Add(7, HalfBusy(530), At(30)).ok());
  const auto account = history.Over(At(0), At(30));
  EXPECT_DOUBLE_EQ(account->elapsed.seconds(), 30);
  EXPECT_DOUBLE_EQ(SecondsOf(*account, Cause::kDown), 0);
}

TEST(DeviceHistory, EmulatedDownTimeIsTheDevices) {
  DeviceHistory history = Ffn(/*time_scale=*/4);
  ASSERT_TRUE(history.Add(7, HalfBusy(1), At(0)).ok());
  ASSERT_TRUE(history.Add(7, HalfBusy(3), At(8)).ok());
  history.OnGone(false);
  const auto account = history.Over(At(0), At(16));
  EXPECT_DOUBLE_EQ(account->wall.seconds(), 16);
  EXPECT_DOUBLE_EQ(account->elapsed.seconds(), 2 + 2);
}

TEST(DeviceHistory, IsBounded) {
  DeviceHistory history = Ffn();
  for (int tick = 0; tick < 4 * static_cast<int>(kMaxSamples); tick++)
    ASSERT_TRUE(history.Add(7, HalfBusy(5000 + tick * 0.5), At(tick * 0.5)).ok());
  EXPECT_EQ(history.samples(), kMaxSamples);
  EXPECT_NEAR(history.Over(At(-1000), At(7200))->elapsed.seconds(), 3599, 1);
  for (uint64_t life = 100; life < 100 + 2 * kMaxSamples; life++)  // a crash loop
    ASSERT_TRUE(history.Add(life, HalfBusy(0.1), At(8000)).ok());
  EXPECT_EQ(history.samples(), kMaxSamples);
}

TEST(DeviceHistory, RefusesWhatCannotBeAndKeepsWhatItHas) {
  DeviceHistory history = Ffn();
  ASSERT_TRUE(history.Add(7, HalfBusy(500, 10), At(0)).ok());
  const auto refused = [&](const LedgerReport& report, const char* words) {
    const absl::Status status = history.Add(7, report, At(1));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << words;
    EXPECT_TRUE(absl::StrContains(status.message(), words)) << status;
  };
  refused(HalfBusy(499, 10), "elapsed went back");
  refused(HalfBusy(501, 9), "tokens went back");
  LedgerReport report = HalfBusy(501, 10);
  report.ledger.cells[1].time = Duration::Seconds(200);
  refused(report, "the states sum to");
  report.ledger.cells[1].time = Duration::Seconds(-1);
  refused(report, "is -1 s");
  report.ledger.cells[1].time = Duration::Nanoseconds(INT64_MAX);
  refused(report, "ffn idle no_work is");
  report = HalfBusy(501, 10);
  report.ledger.cells.push_back(report.ledger.cells[0]);
  refused(report, "twice");
  report = HalfBusy(501, 10);
  report.ledger.cells[1].stage = LedgerStage::kShared;
  refused(report, "no cell of this device");
  report = HalfBusy(501, 10);
  report.ledger.cells[1].state = LedgerState::kStall;  // no_work is idle
  refused(report, "no cell of this device");
  report = HalfBusy(501, 10);
  report.ledger.elapsed = Duration::Nanoseconds(INT64_MIN + 1);
  refused(report, "s elapsed");
  EXPECT_EQ(history.samples(), 1u);
  ASSERT_TRUE(history.Add(7, HalfBusy(501, 11), At(1)).ok());
}

// A time scale that no host has must not overflow anything.
TEST(DeviceHistory, BearsAnyTimeScale) {
  for (const double scale : {1e-300, 1e6}) {
    DeviceHistory history = Ffn(scale);
    ASSERT_TRUE(history.Add(7, HalfBusy(9e7), At(0)).ok());
    ASSERT_TRUE(history.Add(7, HalfBusy(9e7 + 1), At(1)).ok());
    history.OnGone(false);
    EXPECT_GE(history.Over(At(0), At(10))->elapsed, Duration::Seconds(1));
  }
}

}  // namespace
}  // namespace tandem::ledger
