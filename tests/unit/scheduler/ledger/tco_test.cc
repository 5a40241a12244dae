#include "scheduler/ledger/tco.h"

#include <gtest/gtest.h>

#include <map>

#include "scheduler/base/random.h"
#include "tests/unit/scheduler/ledger/accounts.h"

namespace tandem::ledger {
namespace {

using enum LedgerStage;

const CostRow& RowOf(const Tco& tco, const std::string& pool, std::optional<LedgerStage> stage) {
  for (const CostRow& row : tco.rows) {
    if (row.pool == pool && row.stage == stage) return row;
  }
  static const CostRow none;
  ADD_FAILURE() << "no row of " << pool;
  return none;
}

// A colocated device of $3600/h, so a dollar a second: 1 s of prefill, 3 s of attention, 2 s of
// waits.
DeviceAccount Colocated() {
  DeviceAccount account =
      Account("all",
              {Cell(kPrefill, Cause::kNone, 1), Cell(kAttention, Cause::kNone, 3),
               Cell(kShared, Cause::kKvTransfer, 0.5), Cell(kShared, Cause::kNoWork, 1.5)},
              3600);
  account.tokens = {2, 1000, 500};
  return account;
}

TEST(Tco, WaitsAreSplitAsBusySecondsAre) {
  const Tco tco = CostOf({Colocated()});
  ASSERT_EQ(tco.rows.size(), 2u);
  const CostRow& prefill = RowOf(tco, "all", kPrefill);
  EXPECT_DOUBLE_EQ(prefill.Seconds(LedgerState::kBusy), 1);
  EXPECT_DOUBLE_EQ(prefill.Seconds(LedgerState::kStall), 0.125);
  EXPECT_DOUBLE_EQ(prefill.Seconds(LedgerState::kIdle), 0.375);
  EXPECT_DOUBLE_EQ(prefill.dollars_per_hour, 3600 * 0.25);
  EXPECT_DOUBLE_EQ(tco.input.known, 1.5);
  EXPECT_DOUBLE_EQ(tco.output.known, 4.5);
  EXPECT_DOUBLE_EQ(tco.unattributed.known, 0);
  EXPECT_DOUBLE_EQ(tco.idle.known, 1.5);
  EXPECT_DOUBLE_EQ(tco.stall.known, 0.5);
  EXPECT_DOUBLE_EQ(*tco.per_mtok_in(), 1500);
  EXPECT_DOUBLE_EQ(*tco.per_mtok_out(), 9000);
  EXPECT_DOUBLE_EQ(*tco.per_mtok_total(), 4000);
}

TEST(Tco, FfnSecondsAreOutputAndAnIdleDeviceIsNobodys) {
  const Tco tco =
      CostOf({Account("ffn", {Cell(kFfn, Cause::kNone, 2), Cell(kFfn, Cause::kStarved, 2)}, 3600),
              Account("spare", {Cell(kFfn, Cause::kNoWork, 5)}, 7200)});
  EXPECT_DOUBLE_EQ(tco.output.known, 4);
  EXPECT_DOUBLE_EQ(tco.input.known, 0);
  EXPECT_DOUBLE_EQ(tco.unattributed.known, 10);
  EXPECT_DOUBLE_EQ(tco.idle.known, 12);
  EXPECT_DOUBLE_EQ(RowOf(tco, "spare", std::nullopt).dollars_per_hour, 7200);
  EXPECT_DOUBLE_EQ(tco.dollars_per_hour(), 10800);
  EXPECT_FALSE(tco.per_mtok_in().has_value());  // nothing was served
}

TEST(Tco, AnUnknownPriceMakesSumsIncompleteAndSaysWhose) {
  DeviceAccount attention = Colocated();
  const Tco tco = CostOf({attention, Account("ffn", {Cell(kFfn, Cause::kNone, 2)}, -1)});
  EXPECT_EQ(tco.unpriced, (std::vector<std::string>{"ffn-chip"}));
  EXPECT_EQ(tco.mark, model::Mark::kUnknown);
  EXPECT_FALSE(tco.output.complete());
  EXPECT_DOUBLE_EQ(tco.output.unpriced_seconds, 2);
  EXPECT_FALSE(tco.per_mtok_out().has_value());
  EXPECT_FALSE(tco.per_mtok_total().has_value());
  EXPECT_TRUE(tco.per_mtok_in().has_value());  // the FFN has no part in it
}

TEST(Tco, JoulesNeedThePowerOfEveryDevice) {
  DeviceAccount with_power = Colocated();
  with_power.price.watts = FigureOf(500);
  EXPECT_DOUBLE_EQ(*CostOf({with_power}).joules_per_token(), 500 * 6 / 1500.0);
  EXPECT_FALSE(CostOf({with_power, Colocated()}).joules_per_token().has_value());
}

TEST(Tco, TheMarkIsTheWeakestPrices) {
  DeviceAccount assumed = Account("ffn", {Cell(kFfn, Cause::kNone, 1)}, -1);
  assumed.price = RentedPrice("x", FigureOf(2, model::Mark::kAssumed), {});
  const Tco tco = CostOf({Colocated(), assumed, Colocated()});
  EXPECT_EQ(tco.mark, model::Mark::kAssumed);
  EXPECT_EQ(tco.inputs.size(), 2u);  // each once
}

// Goal: no second and no dollar is lost or counted twice, whatever devices do.
// Method: random ledgers over random pools; the rows against the devices.
TEST(Tco, RowsHoldEverySecondAndDollarOfEveryDevice) {
  Random random(20261125);
  for (int round = 0; round < 200; round++) {
    std::vector<DeviceAccount> devices;
    double seconds = 0, dollars = 0;
    for (uint64_t left = 1 + random.Next() % 6; left > 0; left--) {
      std::vector<LedgerCell> cells;
      for (int stage = 0; stage < kStages - 1; stage++) {
        if (random.Next() % 2 == 0)
          cells.push_back(Cell(static_cast<LedgerStage>(stage), Cause::kNone,
                               static_cast<double>(random.Next() % 1000) / 7));
      }
      for (int cause = 1; cause < kCauses; cause++) {
        if (random.Next() % 3 == 0)
          cells.push_back(Cell(kShared, static_cast<Cause>(cause),
                               static_cast<double>(random.Next() % 1000) / 11));
      }
      const double price = static_cast<double>(random.Next() % 500);
      devices.push_back(Account(random.Next() % 2 == 0 ? "a" : "b", std::move(cells), price));
      seconds += devices.back().elapsed.seconds();
      dollars += devices.back().elapsed.seconds() * price / 3600;
    }
    const Tco tco = CostOf(devices);
    double in_rows = 0;
    for (const CostRow& row : tco.rows) in_rows += row.AllDollars().known;
    EXPECT_NEAR(tco.device_seconds, seconds, 1e-9 * (1 + seconds));
    EXPECT_NEAR(in_rows, dollars, 1e-9 * (1 + dollars));
    EXPECT_NEAR(tco.total().known, dollars, 1e-9 * (1 + dollars));
  }
}

TEST(Difference, TakesWhatACellLostFromThoseThatGained) {
  LedgerSnapshot before, after;
  before.elapsed = Duration::Seconds(10);
  before.cells = {Cell(kAttention, Cause::kNone, 5), Cell(kAttention, Cause::kHandoff, 5)};
  after.elapsed = Duration::Seconds(12);
  // The open wait of 5 s ended: 1 s of it was the hand-off, the rest the peer's.
  after.cells = {Cell(kAttention, Cause::kNone, 7), Cell(kAttention, Cause::kHandoff, 1),
                 Cell(kAttention, Cause::kPeerCompute, 4)};
  const LedgerSnapshot difference = Difference(after, before);
  EXPECT_EQ(difference.elapsed, Duration::Seconds(2));
  ASSERT_EQ(difference.cells.size(), 1u);
  EXPECT_EQ(difference.cells[0].cause, Cause::kNone);
  EXPECT_EQ(difference.cells[0].time, Duration::Seconds(2));
}

TEST(CellOf, NamesEveryCellThatThereIsAndNoOther) {
  for (int stage = 0; stage < kStages; stage++) {
    for (int c = 0; c < kCauses; c++) {
      const auto cause = static_cast<Cause>(c);
      const char* stage_word = ToString(static_cast<LedgerStage>(stage));
      const auto cell = CellOf(stage_word, ToString(StateOf(cause)), ToString(cause));
      const bool is_one = c != 0 || static_cast<LedgerStage>(stage) != kShared;
      ASSERT_EQ(cell.has_value(), is_one) << stage_word << " " << ToString(cause);
      if (cell.has_value()) {
        EXPECT_EQ(cell->cause, cause);
      }
    }
  }
  EXPECT_TRUE(CellOf("ffn", "busy", "").has_value());
  EXPECT_FALSE(CellOf("ffn", "idle", "handoff").has_value());
  EXPECT_FALSE(CellOf("gpu", "busy", "").has_value());
  EXPECT_FALSE(CellOf("ffn", "stall", "").has_value());
}

}  // namespace
}  // namespace tandem::ledger
