#include "scheduler/ledger/price.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace tandem::ledger {
namespace {

using model::Mark;

constexpr char kOwned[] =
    "prices:\n"
    "  - device: groq3-lpx-rack\n"
    "    dollars_per_hour: 180\n"
    "  - pool: attention\n"
    "    capex_dollars: {value: 350640, mark: assumed, source: quote}\n"
    "    life_years: 4\n"
    "    power_watts: 10e3\n"
    "    pue: 1.25\n"
    "    electricity_dollars_per_kwh: 0.08\n"
    "    hosting_dollars_per_hour: 1.5\n";

TEST(PriceList, ReadsRentedAndOwnedDevices) {
  const auto list = PriceList::Read(kOwned, "prices.yaml");
  ASSERT_TRUE(list.ok()) << list.status();
  const Price registered =
      RentedPrice("x", {7, Mark::kMeasured, "a test"}, {300, Mark::kStated, ""});
  const Price rack = list->PriceOf("ffn", "emulated/groq3-lpx-rack", registered);
  EXPECT_DOUBLE_EQ(rack.dollars_per_hour.value, 180);
  EXPECT_EQ(rack.dollars_per_hour.mark, Mark::kStated);
  EXPECT_DOUBLE_EQ(rack.watts.value, 300);  // the file does not say
  // The pool's entry goes first.
  const Price owned = list->PriceOf("attention", "emulated/groq3-lpx-rack", registered);
  // 350,640 / (4 x 8,766 h) + 10 kW x 1.25 x 0.08 + 1.5
  EXPECT_DOUBLE_EQ(owned.dollars_per_hour.value, 10 + 1 + 1.5);
  EXPECT_EQ(owned.dollars_per_hour.mark, Mark::kAssumed);
  EXPECT_EQ(owned.inputs.size(), 6u);
  EXPECT_DOUBLE_EQ(owned.watts.value, 10e3);
  EXPECT_DOUBLE_EQ(list->PriceOf("prefill", "ggml-cpu", registered).dollars_per_hour.value, 7);
}

TEST(PriceList, ReadsTheExampleThatIsShipped) {
  const std::string path =
      absl::StrCat(std::getenv("TANDEM_SOURCE_DIR"), "/deploy/prices/example.yaml");
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  const auto list = PriceList::Read(text.str(), path);
  ASSERT_TRUE(list.ok()) << list.status();
  const Price rack = list->PriceOf("ffn", "emulated/groq3-lpx-rack", {});
  EXPECT_EQ(rack.dollars_per_hour.mark, Mark::kAssumed);
  EXPECT_NEAR(rack.dollars_per_hour.value, 3.3e6 / (4 * 8766) + 160 * 1.25 * 0.08 + 12, 1e-9);
}

// Every refusal names the file, the line and the key.
TEST(PriceList, RefusesWhatIsNoPrice) {
  const auto owned_with = [](const std::string& key, const std::string& value) {
    std::string text = kOwned;
    const size_t at = text.find(key + ":");
    return text.replace(at, text.find('\n', at) - at, key + ": " + value);
  };
  const struct {
    std::string text, line, key;
  } cases[] = {
      {owned_with("dollars_per_hour", "-1"), ":3:", "dollars_per_hour"},
      {owned_with("dollars_per_hour", "nan"), ":3:", "dollars_per_hour"},
      {owned_with("dollars_per_hour", "cheap"), ":3:", "dollars_per_hour"},
      {owned_with("dollars_per_hour", "inf"), ":3:", "dollars_per_hour"},
      {owned_with("dollars_per_hour", "{value: -1, mark: stated, source: x}"),
       ":3:", "dollars_per_hour.value"},
      {owned_with("dollars_per_hour", "{value: 1, mark: guessed, source: x}"),
       ":3:", "dollars_per_hour.mark"},
      {owned_with("dollars_per_hour", "{value: unknown, source: x}"),
       ":3:", "dollars_per_hour.value"},
      {owned_with("dollars_per_hour", "[1]"), ":3:", "dollars_per_hour"},
      {owned_with("capex_dollars", "-5"), ":5:", "capex_dollars"},
      {owned_with("life_years", "0"), ":6:", "life_years"},
      {owned_with("power_watts", "-1"), ":7:", "power_watts"},
      {owned_with("pue", "0.9"), ":8:", "pue"},
      {owned_with("electricity_dollars_per_kwh", "-0.1"), ":9:", "electricity_dollars_per_kwh"},
      {owned_with("hosting_dollars_per_hour", ".nan"), ":10:", "hosting_dollars_per_hour"},
      {absl::StrCat(kOwned, "    dollars_per_hour: 3\n"), ":5:", "capex_dollars"},
      {absl::StrCat(kOwned, "    device: x\n"), ":11:", "device"},
      {absl::StrCat(kOwned, "    colour: x\n"), ":11:", "colour"},
      {absl::StrCat(kOwned, "  - device: groq3-lpx-rack\n    dollars_per_hour: 1\n"),
       ":11:", "device"},
      {absl::StrCat(kOwned, "  - device: lonely\n"), ":11:", "capex_dollars"},
      {absl::StrCat(kOwned, "  - dollars_per_hour: 1\n"), ":11:", "device"},
      {"price: []\n", ":1:", "prices"},
  };
  for (const auto& bad : cases) {
    const auto list = PriceList::Read(bad.text, "prices.yaml");
    ASSERT_FALSE(list.ok()) << bad.text;
    EXPECT_TRUE(absl::IsInvalidArgument(list.status()));
    EXPECT_TRUE(absl::StrContains(list.status().message(), absl::StrCat("prices.yaml", bad.line)))
        << list.status() << "\n"
        << bad.text;
    EXPECT_TRUE(absl::StrContains(list.status().message(), bad.key)) << list.status();
  }
}

TEST(CatalogPrice, IsThatOfAllChips) {
  model::Device device;
  device.name = "h100-x8";
  device.count = 8;
  device.chip.dollars_per_hour = {1.69, Mark::kStated, "a list"};
  const Price price = CatalogPrice(device);
  EXPECT_DOUBLE_EQ(price.dollars_per_hour.value, 13.52);
  EXPECT_EQ(price.dollars_per_hour.mark, Mark::kStated);
  EXPECT_FALSE(price.watts.known());
  ASSERT_EQ(price.inputs.size(), 1u);
  EXPECT_TRUE(absl::StrContains(price.inputs[0].name, "h100-x8"));
  device.chip.dollars_per_hour = {0, Mark::kUnknown, "not found"};
  EXPECT_FALSE(CatalogPrice(device).known());
}

TEST(Weakest, OrdersMarks) {
  const auto of = [](std::vector<Mark> marks) {
    std::vector<Input> inputs;
    for (const Mark mark : marks) inputs.push_back({"x", {1, mark, "test"}});
    return Weakest(inputs);
  };
  EXPECT_EQ(of({}), Mark::kMeasured);
  EXPECT_EQ(of({Mark::kMeasured, Mark::kFitted}), Mark::kFitted);
  EXPECT_EQ(of({Mark::kStated, Mark::kFitted}), Mark::kStated);
  EXPECT_EQ(of({Mark::kStated, Mark::kAssumed, Mark::kMeasured}), Mark::kAssumed);
  EXPECT_EQ(of({Mark::kUnknown, Mark::kAssumed}), Mark::kUnknown);
}

}  // namespace
}  // namespace tandem::ledger
