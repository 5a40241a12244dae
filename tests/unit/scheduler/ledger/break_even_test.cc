#include "scheduler/ledger/break_even.h"

#include <absl/strings/match.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/ledger/accounts.h"

namespace tandem::ledger {
namespace {

// An hour: attention for $10, a specialist that was busy for a quarter of it; 4 million tokens.
std::vector<DeviceAccount> AnHour(double specialist_price) {
  std::vector<DeviceAccount> devices = {
      Account("attention", {Cell(LedgerStage::kAttention, Cause::kNone, 3600)}, 10),
      Account("ffn",
              {Cell(LedgerStage::kFfn, Cause::kNone, 900),
               Cell(LedgerStage::kFfn, Cause::kStarved, 2700)},
              specialist_price)};
  devices[0].tokens = {10, 3'000'000, 1'000'000};
  return devices;
}

SpecialistView View(double specialist_price) {
  return ViewSpecialists(AnHour(specialist_price), {"ffn"});
}

TEST(BreakEven, ViewSetsTheSpecialistsApart) {
  const SpecialistView view = View(20);
  EXPECT_EQ(view.pools, (std::vector<std::string>{"ffn"}));
  EXPECT_EQ(view.devices, 1u);
  EXPECT_DOUBLE_EQ(view.device_hours, 1);
  EXPECT_DOUBLE_EQ(view.occupancy, 0.25);
  EXPECT_DOUBLE_EQ(*view.dollars_per_hour, 20);
  EXPECT_DOUBLE_EQ(view.others.known, 10);
  EXPECT_DOUBLE_EQ(view.mtok, 4);
  EXPECT_DOUBLE_EQ(view.PerMtok(20), 7.5);
}

// Below p* the topology is cheaper than the baseline, above it dearer.
TEST(BreakEven, TheSignChangesAtTheBreakEvenPrice) {
  const double baseline = 5;  // $/Mtok
  const SpecialistView view = View(-1);
  const BreakEven price = BreakEvenPrice(view, baseline);
  ASSERT_TRUE(price.value.has_value()) << price.why_not;
  EXPECT_DOUBLE_EQ(*price.value, 10);  // 5 x 4 - 10
  EXPECT_LT(view.PerMtok(*price.value * 0.99), baseline);
  EXPECT_DOUBLE_EQ(view.PerMtok(*price.value), baseline);
  EXPECT_GT(view.PerMtok(*price.value * 1.01), baseline);
  // The whole report says the same: at p* a token costs the baseline's price.
  EXPECT_NEAR(*CostOf(AnHour(*price.value)).per_mtok_total(), baseline, 1e-9);
}

// The same cluster with the specialist busier, and tokens with it.
TEST(BreakEven, TheSignChangesAtTheBreakEvenOccupancy) {
  const double baseline = 5;
  const BreakEven occupancy = BreakEvenOccupancy(View(20), baseline);
  ASSERT_TRUE(occupancy.value.has_value()) << occupancy.why_not;
  EXPECT_DOUBLE_EQ(*occupancy.value, 0.375);  // 0.25 x 7.5 / 5
  const auto per_mtok_at = [](double share) {
    std::vector<DeviceAccount> devices = AnHour(20);
    devices[1].cells = {Cell(LedgerStage::kFfn, Cause::kNone, 3600 * share),
                        Cell(LedgerStage::kFfn, Cause::kStarved, 3600 * (1 - share))};
    devices[0].tokens.tokens_in = static_cast<uint64_t>(3e6 * share / 0.25);
    devices[0].tokens.tokens_out = static_cast<uint64_t>(1e6 * share / 0.25);
    return *CostOf(devices).per_mtok_total();
  };
  EXPECT_GT(per_mtok_at(*occupancy.value * 0.99), baseline);
  EXPECT_NEAR(per_mtok_at(*occupancy.value), baseline, 1e-6);
  EXPECT_LT(per_mtok_at(*occupancy.value * 1.01), baseline);
}

TEST(BreakEven, SaysWhyThereIsNone) {
  const auto why = [](const BreakEven& result, const char* words) {
    EXPECT_FALSE(result.value.has_value());
    EXPECT_TRUE(absl::StrContains(result.why_not, words)) << result.why_not;
  };
  why(BreakEvenPrice(View(20), 2.5), "at no price");  // attention alone costs 2.5
  why(BreakEvenPrice(View(20), 1), "at no price");
  why(BreakEvenOccupancy(View(20), 1), "at no occupancy");
  why(BreakEvenOccupancy(View(-1), 5), "price is unknown");
  why(BreakEvenPrice(View(20), 0), "costs nothing");
  why(BreakEvenPrice(ViewSpecialists(AnHour(1), {"sram"}), 5), "no specialist pool");
  std::vector<DeviceAccount> unpriced = AnHour(20);
  unpriced[0].price = RentedPrice("attention-chip", {}, {});
  why(BreakEvenPrice(ViewSpecialists(unpriced, {"ffn"}), 5), "beside the specialists");
  std::vector<DeviceAccount> silent = AnHour(20);
  silent[0].tokens = {};
  why(BreakEvenPrice(ViewSpecialists(silent, {"ffn"}), 5), "no token");
}

}  // namespace
}  // namespace tandem::ledger
