#include "services/ctl/cost_report.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_split.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cstdlib>

#include "services/ctl/table.h"
#include "services/runtime/catalog_files.h"
#include "tests/unit/scheduler/ledger/accounts.h"

namespace tandem::ctl {
namespace {

using ledger::Account;
using ledger::Cause;
using ledger::Cell;
using ledger::LedgerStage;

const model::Catalog& Shipped() {
  static const model::Catalog catalog = [] {
    auto read =
        LoadCatalog({absl::StrCat(std::getenv("TANDEM_SOURCE_DIR"), "/scheduler/model/catalog")});
    EXPECT_TRUE(read.ok()) << read.status();
    return read.value_or(model::Catalog());
  }();
  return catalog;
}

// A minute of an emulated afd cluster that served 600 prompts of 1,000 tokens with 100 each.
std::vector<ledger::DeviceAccount> AfdMinute(double attention_price, double ffn_price) {
  std::vector<ledger::DeviceAccount> devices = {
      Account("attention",
              {Cell(LedgerStage::kPrefill, Cause::kNone, 10),
               Cell(LedgerStage::kAttention, Cause::kNone, 30),
               Cell(LedgerStage::kShared, Cause::kPeerCompute, 12),
               Cell(LedgerStage::kShared, Cause::kNoWork, 8)},
              attention_price),
      Account(
          "ffn",
          {Cell(LedgerStage::kFfn, Cause::kNone, 15), Cell(LedgerStage::kFfn, Cause::kStarved, 45)},
          ffn_price)};
  devices[0].tokens = {600, 600'000, 60'000};
  devices[1].memory_class = MemoryClass::kSram;
  for (ledger::DeviceAccount& device : devices) {
    device.time_scale = 4;
    device.wall = Duration::Seconds(240);
    device.model_shape = "llama-3-70b";
    device.weights = "fp8";
  }
  return devices;
}

CostQuestion Question() {
  CostQuestion question;
  question.slo = {Duration::Milliseconds(50), Duration::Seconds(2)};
  return question;
}

CostReport Report(std::vector<ledger::DeviceAccount> devices,
                  const CostQuestion& question = Question()) {
  auto report = MakeCostReport(std::move(devices), question, Shipped(), ledger::PriceList());
  EXPECT_TRUE(report.ok()) << report.status();
  return report.value_or(CostReport());
}

TEST(CostReport, AnUnknownSpecialistPriceShowsTheBreakEvenPrice) {
  const CostReport report = Report(AfdMinute(1, -1));
  ASSERT_TRUE(report.baseline.has_value()) << report.why_no_baseline;
  EXPECT_EQ(report.load.request.prompt_tokens, 1000u);
  EXPECT_EQ(report.load.request.output_tokens, 100u);
  EXPECT_DOUBLE_EQ(report.load.output_tokens_per_s, 1000);
  ASSERT_TRUE(report.price.value.has_value()) << report.price.why_not;
  EXPECT_LT(*report.price_low.value, *report.price.value);
  EXPECT_GT(*report.price_high.value, *report.price.value);
  EXPECT_TRUE(absl::StrContains(report.occupancy.why_not, "unknown"));
  // At that price the report itself says that a token costs as much as on the baseline.
  const CostReport at_price = Report(AfdMinute(1, *report.price.value));
  EXPECT_NEAR(*at_price.tco.per_mtok_total(), report.baseline->per_mtok, 1e-9);
  EXPECT_NEAR(*at_price.occupancy.value, at_price.specialist.occupancy, 1e-9);
}

TEST(CostReport, TextFitsOneScreenOf100ColumnsAndLabelsWhatItSays) {
  for (const double ffn_price : {-1.0, 150.0}) {
    const std::string text = CostText(Report(AfdMinute(13.52, ffn_price)));
    const std::vector<std::string> lines = absl::StrSplit(text, '\n');
    EXPECT_LE(lines.size(), 40u);
    for (const std::string& line : lines) EXPECT_LE(line.size(), kTerminalColumns) << line;
    // Long lines are wrapped between words.
    const std::string one_line =
        absl::StrJoin(absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty()), " ");
    const std::string band = absl::StrFormat("%.1f %%", 100 * planner::kTpotMedianError);
    for (const std::string& words : std::vector<std::string>{
             "time is emulated", "120 device seconds in 480 wall seconds", "forecast", band,
             "starved 75.0%", "h100-x2", "[fitted]", "[stated]", "idle", "break-even"})
      EXPECT_TRUE(absl::StrContains(one_line, words)) << words << "\n" << text;
    EXPECT_EQ(absl::StrContains(text, "its price is unknown"), ffn_price < 0) << text;
  }
}

TEST(CostReport, JsonSumsAndSaysWhatIsUnknown) {
  const boost::json::object json = CostJson(Report(AfdMinute(0.6, -1)));
  EXPECT_TRUE(json.at("totals").at("dollars_per_mtok_total").is_null());
  EXPECT_DOUBLE_EQ(json.at("totals").at("total").at("known_dollars").to_number<double>(), 0.01);
  EXPECT_DOUBLE_EQ(json.at("totals").at("total").at("unpriced_seconds").to_number<double>(), 60);
  EXPECT_EQ(json.at("baseline").at("kind").as_string(), "forecast");
  EXPECT_TRUE(json.at("break_even").at("dollars_per_hour").at("value").is_double());
  EXPECT_TRUE(json.at("break_even").at("occupancy").at("value").is_null());
  EXPECT_EQ(json.at("specialist").at("pools").at(0).as_string(), "ffn");
}

TEST(CostReport, WhatWasMeasuredOfTheBaselineGoesBeforeItsForecast) {
  CostReport report = Report(AfdMinute(1, -1));
  ASSERT_TRUE(report.baseline.has_value()) << report.why_no_baseline;
  // 10 s of the baseline's device, half as dear a token as was forecast.
  const double dollars = 10 * report.baseline->price.dollars_per_hour.value / 3600;
  ledger::DeviceAccount device = AfdMinute(1, -1)[0];
  device.price = report.baseline->price;
  device.elapsed = Duration::Seconds(10);
  device.cells = {{ledger::LedgerStage::kAttention, ledger::LedgerState::kBusy,
                   ledger::Cause::kNone, Duration::Seconds(10)}};
  const auto tokens = static_cast<uint64_t>(1e6 * dollars / (report.baseline->per_mtok / 2));
  device.tokens = {.prompts = 1, .tokens_in = tokens / 2, .tokens_out = tokens - tokens / 2};
  const auto measured = ToMeasured(/*clients=*/20, device);
  ASSERT_TRUE(measured.ok()) << measured.status();
  EXPECT_NEAR(measured->per_mtok, report.baseline->per_mtok / 2, 1e-3);
  EXPECT_NEAR(measured->tpot.seconds(), 20 * 10.0 / static_cast<double>(device.tokens.tokens_out),
              1e-9);
  const double forecast_price = *report.price.value;
  UseMeasured(*measured, report);
  EXPECT_LT(*report.price.value, forecast_price);
  EXPECT_EQ(*report.price.value, *report.price_low.value);
  EXPECT_TRUE(absl::StrContains(CostText(report), "measured on one emulated"));
  EXPECT_EQ(CostJson(report).at("baseline").at("measured").at("clients").to_number<int>(), 20);
  device.tokens = {};
  EXPECT_TRUE(absl::IsFailedPrecondition(ToMeasured(20, device).status()));
}

TEST(CostReport, PricesOfTheUserGoFirst) {
  auto devices = AfdMinute(36, -1);
  const auto prices = ledger::PriceList::Read(
      "prices: [{device: ffn-chip, dollars_per_hour: 90}, {pool: attention, dollars_per_hour: 18}]",
      "prices.yaml");
  ASSERT_TRUE(prices.ok()) << prices.status();
  ApplyPrices(*prices, devices);
  const CostReport report = Report(devices);
  EXPECT_DOUBLE_EQ(report.tco.total().known, (18 + 90) / 60.0);
  EXPECT_TRUE(report.tco.unpriced.empty());
}

TEST(CostReport, ABaselineThatCannotBeIsReportedAndAnUnknownOneRefused) {
  auto quiet = AfdMinute(36, 90);
  quiet[0].tokens = {};
  const CostReport report = Report(quiet);
  EXPECT_FALSE(report.baseline.has_value());
  EXPECT_TRUE(absl::StrContains(CostText(report), "0 prompts began"));
  EXPECT_TRUE(absl::StrContains(report.price.why_not, "no baseline"));
  auto real = AfdMinute(36, 90);
  for (auto& device : real) device.model_shape = "";
  EXPECT_TRUE(absl::StrContains(Report(real).why_no_baseline, "--model-shape"));

  const auto refused = [&](auto change, const char* words) {
    CostQuestion question = Question();
    change(question);
    const auto made = MakeCostReport(quiet, question, Shipped(), ledger::PriceList());
    EXPECT_TRUE(absl::IsInvalidArgument(made.status())) << made.status();
    EXPECT_TRUE(absl::StrContains(made.status().message(), words)) << made.status();
  };
  // Even without a load.
  refused([](CostQuestion& q) { q.baseline = "h101-colocated"; }, "h100-colocated");
  refused([](CostQuestion& q) { q.engine = "orca"; }, "vllm");
  refused([](CostQuestion& q) { q.specialist = "fpga"; }, "attention, ffn");
}

TEST(CostReport, NamesTheSpecialistByPoolOrMemoryClass) {
  CostQuestion question = Question();
  question.specialist = "hbm";
  EXPECT_EQ(Report(AfdMinute(36, 90), question).specialist.pools,
            std::vector<std::string>{"attention"});
  question.specialist = "ffn";
  EXPECT_EQ(Report(AfdMinute(36, 90), question).specialist.pools, std::vector<std::string>{"ffn"});
  auto all_hbm = AfdMinute(36, 90);
  all_hbm[1].memory_class = MemoryClass::kHbm;
  EXPECT_TRUE(absl::StrContains(CostText(Report(all_hbm)), "--specialist POOL"));
}

}  // namespace
}  // namespace tandem::ctl
