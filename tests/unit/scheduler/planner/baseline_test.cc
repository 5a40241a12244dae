#include "scheduler/planner/baseline.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "services/runtime/catalog_files.h"

namespace tandem::planner {
namespace {

const model::Catalog& Shipped() {
  static const model::Catalog catalog = [] {
    auto read =
        LoadCatalog({absl::StrCat(std::getenv("TANDEM_SOURCE_DIR"), "/scheduler/model/catalog")});
    EXPECT_TRUE(read.ok()) << read.status();
    return read.value_or(model::Catalog());
  }();
  return catalog;
}

constexpr ServiceObjective kSlo = {Duration::Milliseconds(50), Duration::Seconds(2)};

BaselineLoad Load() {
  return {.request = {1024, 256},
          .output_tokens_per_s = 1000,
          .model_shape = "llama-3-70b",
          .weights = model::Dtype::kFp8};
}

absl::StatusOr<BaselineForecast> Of(const std::string& name, const BaselineLoad& load = Load(),
                                    const ServiceObjective& slo = kSlo,
                                    const ledger::PriceList& prices = {}) {
  return ForecastBaseline(Shipped(), prices, name, load, slo, *FindEngine(Shipped(), "vllm"));
}

cost::CostTable TableOf(const std::string& device) {
  cost::CostOptions options;
  const model::Engine vllm = *Shipped().FindEngine("vllm");
  options.precision = cost::PrecisionOf(vllm, model::Dtype::kFp8);
  options.engine = cost::ConstantsOf(vllm, "", "h100-sxm", model::Dtype::kFp8, "llama-3-70b");
  auto table = cost::CostTable::Create(*Shipped().FindDevice(device),
                                       *Shipped().FindModel("llama-3-70b"), options);
  EXPECT_TRUE(table.ok()) << table.status();
  return *table;
}

// 70 GB of weights do not fit one H100 of 72 usable GB beside its workspace and KV; two hold them,
// and share each layer with the fewest all-reduces.
TEST(Baseline, AChipsNameTakesTheCheapestGroupThatHoldsTheModel) {
  const auto forecast = Of("h100-colocated");
  ASSERT_TRUE(forecast.ok()) << forecast.status();
  EXPECT_EQ(forecast->device, "h100-x2");
  EXPECT_EQ(Of("h100-x8-colocated")->device, "h100-x8");
}

// A group that just meets the SLO with one sequence is no fair comparison where a larger one meets
// it with many.
TEST(Baseline, ATightObjectiveTakesTheGroupWhoseTokensAreCheapest) {
  const Duration one = cost::TimePerOutputToken(TableOf("h100-x2"), 1, Load().request);
  const ServiceObjective tight = {one + Duration::Microseconds(1), kSlo.ttft};
  const auto smallest = Of("h100-x2-colocated", Load(), tight);
  ASSERT_TRUE(smallest.ok()) << smallest.status();
  EXPECT_EQ(smallest->batch, 1u);
  const auto chosen = Of("h100-colocated", Load(), tight);
  ASSERT_TRUE(chosen.ok()) << chosen.status();
  EXPECT_LT(chosen->per_mtok, smallest->per_mtok / 2);
  for (const char* group : {"h100-x4-colocated", "h100-x8-colocated"})
    EXPECT_LE(chosen->per_mtok, Of(group, Load(), tight)->per_mtok) << group;
}

TEST(Baseline, TheBatchIsTheLargestThatMeetsTheSloAndFits) {
  const auto forecast = Of("h100-x8-colocated");
  ASSERT_TRUE(forecast.ok()) << forecast.status();
  const cost::CostTable table = TableOf("h100-x8");
  EXPECT_LE(forecast->tpot, kSlo.tpot);
  EXPECT_EQ(forecast->tpot, cost::TimePerOutputToken(table, forecast->batch, Load().request));
  if (forecast->batch < forecast->batch_that_fits) {
    EXPECT_GT(cost::TimePerOutputToken(table, forecast->batch + 1, Load().request), kSlo.tpot);
  }
  // A looser SLO takes more at once, and a token costs less; where KV is the bound, no more.
  const auto tight = Of("h100-x8-colocated", Load(), {Duration::Milliseconds(20), kSlo.ttft});
  ASSERT_TRUE(tight.ok()) << tight.status();
  EXPECT_LT(tight->batch, forecast->batch);
  EXPECT_GT(tight->per_mtok, forecast->per_mtok);
  const auto loose = Of("h100-x2-colocated", Load(), {Duration::Seconds(10), kSlo.ttft});
  EXPECT_EQ(loose->batch, loose->batch_that_fits);
}

TEST(Baseline, MoneyFollowsFromPriceAndThroughput) {
  const auto forecast = Of("h100-x8-colocated");
  ASSERT_TRUE(forecast.ok()) << forecast.status();
  const double price = 8 * 1.69;
  EXPECT_DOUBLE_EQ(forecast->price.dollars_per_hour.value, price);
  const double rate = static_cast<double>(forecast->batch) / forecast->tpot.seconds();
  EXPECT_NEAR(forecast->output_tokens_per_s, rate, 1e-6 * rate);
  EXPECT_NEAR(forecast->devices, 1000 / rate, 1e-9);
  // 1,280 tokens of a request, 256 of which are output.
  EXPECT_NEAR(forecast->per_mtok, price / 3600 / (rate * 5) * 1e6, 1e-9);
  EXPECT_NEAR(forecast->per_mtok_high() / forecast->per_mtok, 1 + kTpotMedianError, 1e-9);
  const auto twice = ledger::PriceList::Read("prices: [{device: h100-x8, dollars_per_hour: 27.04}]",
                                             "prices.yaml");
  ASSERT_TRUE(twice.ok()) << twice.status();
  EXPECT_NEAR(Of("h100-x8-colocated", Load(), kSlo, *twice)->per_mtok, 2 * forecast->per_mtok,
              1e-9);
}

TEST(Baseline, ListsItsInputsWithTheirMarks) {
  const auto forecast = Of("h100-x8-colocated");
  ASSERT_TRUE(forecast.ok()) << forecast.status();
  bool fitted = false, price = false;
  for (const ledger::Input& input : forecast->inputs) {
    fitted = fitted || input.figure.mark == model::Mark::kFitted;
    price = price || absl::StrContains(input.name, "price of h100-x8");
  }
  EXPECT_TRUE(fitted && price);
  EXPECT_EQ(ledger::Weakest(forecast->inputs), model::Mark::kStated);
}

TEST(Baseline, RefusesWhatItCannotForecast) {
  const auto refused = [](const absl::StatusOr<BaselineForecast>& forecast, absl::StatusCode code,
                          std::vector<std::string> words) {
    EXPECT_EQ(forecast.status().code(), code) << forecast.status();
    for (const std::string& word : words)
      EXPECT_TRUE(absl::StrContains(forecast.status().message(), word)) << forecast.status();
  };
  using enum absl::StatusCode;
  refused(Of("h101-colocated"), kInvalidArgument, {"h101-colocated", "h100-colocated", "b200-x2"});
  refused(Of("h100"), kInvalidArgument, {"does not end in -colocated"});
  refused(Of("-colocated"), kInvalidArgument, {"does not end"});
  refused(Of("tpu-colocated"), kInvalidArgument, {"tpu-v5e or tpu-v5p"});
  refused(Of("tpu-v5p-x8-colocated"), kFailedPrecondition, {"tpu-v5p-x8", "price is unknown"});
  BaselineLoad load = Load();
  load.model_shape = "llama-9";
  refused(Of("h100-colocated", load), kInvalidArgument, {"llama-9"});
  load = Load();
  load.weights = model::Dtype::kNvfp4;
  refused(Of("h100-colocated", load), kInvalidArgument, {"nvfp4"});
  load = Load();
  load.request.output_tokens = 0;
  refused(Of("h100-colocated", load), kInvalidArgument, {"0 output tokens"});
  load = Load();
  load.model_shape = "llama-3-405b";
  refused(Of("h100-x2-colocated", load), kFailedPrecondition, {"h100-x2", "does not hold"});
  refused(Of("h100-colocated", Load(), {Duration::Milliseconds(1), kSlo.ttft}), kFailedPrecondition,
          {"TPOT is 1 ms"});
  refused(Of("h100-colocated", Load(), {kSlo.tpot, Duration::Milliseconds(1)}), kFailedPrecondition,
          {"TTFT is 1 ms"});
}

TEST(Baseline, EnginesHaveNames) {
  EXPECT_EQ(FindEngine(Shipped(), "vllm")->name, "vllm");
  EXPECT_DOUBLE_EQ(FindEngine(Shipped(), "none")->prefill_share.value, 1);
  EXPECT_DOUBLE_EQ(FindEngine(Shipped(), "none")->step_seconds.value, 0);
  const auto none = FindEngine(Shipped(), "orca");
  EXPECT_TRUE(absl::StrContains(none.status().message(),
                                "neither none nor one of sglang, tensorrt-llm, vllm"));
}

}  // namespace
}  // namespace tandem::planner
