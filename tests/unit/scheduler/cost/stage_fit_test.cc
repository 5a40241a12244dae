#include "scheduler/cost/stage_fit.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/scheduler/cost/shapes.h"
#include "tests/unit/scheduler/model/shipped_catalog.h"

namespace tandem::cost {
namespace {

using model::Dtype;
using model::Shipped;

DeviceFit Fit(const model::Device& device, const model::ModelShape& shape, Dtype weights,
              const FitLoad& load) {
  auto fit = FitDevice(device, shape, {weights}, load);
  EXPECT_TRUE(fit.ok()) << fit.status();
  return *fit;
}

StageFit Of(const DeviceFit& fit, Stage stage) { return fit.stages.at(static_cast<size_t>(stage)); }

// Source: facts/chips.md section 3.
TEST(RidgeOf, AtPeakIsThatOfTheFacts) {
  const auto peak = [](const char* chip, Dtype weights) {
    return RidgeOf(*Shipped().FindChip(chip), weights)->peak;
  };
  EXPECT_NEAR(peak("h100-sxm", Dtype::kBf16), 295, 1);
  EXPECT_NEAR(peak("h100-sxm", Dtype::kFp8), 295, 1);
  EXPECT_NEAR(peak("h200-sxm", Dtype::kFp8), 206, 1);
  EXPECT_NEAR(peak("vera-rubin", Dtype::kFp8), 398, 1);
  EXPECT_NEAR(peak("groq-lpu-v1", Dtype::kInt8), 4.7, 0.05);
  EXPECT_NEAR(peak("groq3-lpu", Dtype::kFp8), 4.0, 0.01);
  EXPECT_NEAR(peak("cs-3", Dtype::kBf16), 6.0, 0.05);
  EXPECT_FALSE(RidgeOf(*Shipped().FindChip("vera-rubin"), Dtype::kInt8).has_value());  // no peak
  EXPECT_FALSE(RidgeOf(*Shipped().FindChip("cs-3"), Dtype::kFp8).has_value());
}

TEST(RidgeOf, EfficienciesMoveIt) {
  const Ridge ridge = *RidgeOf(*Shipped().FindChip("groq3-lpu"), Dtype::kFp8);
  EXPECT_DOUBLE_EQ(ridge.reached, ridge.peak * 0.4 / 1);
}

// The ridge is where the two parts of a dense FFN's call cross.
TEST(RidgeOf, IsWhereComputingAnFfnTakesAsLongAsReadingIt) {
  const model::Device h100 = *Shipped().FindDevice("h100-sxm");
  const double ridge = RidgeOf(h100.chip, Dtype::kFp8)->reached;
  const auto rows = static_cast<uint64_t>(ridge);
  const FitLoad below{rows, 100, 100}, above{rows + 1, 100, 100};
  const StageFit under = Of(Fit(h100, Llama70B(), Dtype::kFp8, below), Stage::kFfn);
  const StageFit over = Of(Fit(h100, Llama70B(), Dtype::kFp8, above), Stage::kFfn);
  EXPECT_GE(under.parts.memory, under.parts.compute);
  EXPECT_LT(over.parts.memory, over.parts.compute);
}

// Source: facts/models.md: 112.7 GB of FFN, of which 44 GB of a CS-3 hold 39 %; 64 sequences of
// 131,072 tokens are 2.749 TB.
TEST(StageFit, MemoryIsThatOfTheFacts) {
  const DeviceFit cs3 =
      Fit(*Shipped().FindDevice("cs-3"), Llama70B(), Dtype::kBf16, {64, 131072, 8192});
  const StageFit ffn = Of(cs3, Stage::kFfn);
  EXPECT_NEAR(ffn.weight_bytes, 112.7e9, 0.1e9);
  EXPECT_NEAR(ffn.device_bytes / ffn.weight_bytes, 0.39, 0.005);
  EXPECT_EQ(ffn.devices, 3u);
  EXPECT_EQ(ffn.kv_bytes, 0);
  const StageFit attention = Of(cs3, Stage::kAttention);
  EXPECT_NEAR(attention.kv_bytes, 2.749e12, 1e9);
  EXPECT_EQ(attention.devices_for_weights, 1u);
  EXPECT_EQ(attention.devices, 64u);
  EXPECT_EQ(attention.rows, 1u);
  const StageFit prefill = Of(cs3, Stage::kPrefill);
  EXPECT_NEAR(prefill.weight_bytes, 141.1e9, 0.1e9);
  EXPECT_NEAR(prefill.kv_bytes, 2.68e9, 0.01e9);  // one prompt
}

TEST(StageFit, GroupThatCannotDivideKvHoldsCopies) {
  const StageFit attention =
      Of(Fit(*Shipped().FindDevice("groq3-lpx-rack"), Llama70B(), Dtype::kFp8, {1, 8192, 8192}),
         Stage::kAttention);
  EXPECT_EQ(attention.kv_copies, 32u);  // 256 chips, 8 KV heads
  EXPECT_NEAR(attention.kv_bytes, 32 * 8192 * 327'680.0, 1);
}

// Goal: times are the cost table's own. Method: a step of all stages on one device is DecodeStep.
TEST(StageFit, TimesAreThoseOfTheCostTable) {
  const model::Device device = *Shipped().FindDevice("h200-x8");
  CostOptions options;
  options.precision.weights = Dtype::kFp8;
  const CostTable table = *CostTable::Create(device, Llama70B(), options);
  const DeviceFit fit = Fit(device, Llama70B(), Dtype::kFp8, {16, 1000, 3000});
  EXPECT_EQ(Of(fit, Stage::kAttention).devices, 1u);
  EXPECT_EQ(Of(fit, Stage::kAttention).time + Of(fit, Stage::kFfn).time,
            table.DecodeStep(AttentionRows::Even(Llama70B(), 16, 16 * 1000)));
  EXPECT_EQ(Of(fit, Stage::kPrefill).time, table.Prefill(0, 3000));
}

TEST(StageFit, PartsAreThoseOfTheTime) {
  model::Device device = UnitDevice(2);  // p is the max form
  device.chip.dtypes[Dtype::kBf16].layer_seconds = Known(4);
  device.all_reduce.base_seconds = Known(3);
  device.link = {Known(1e30), Known(0)};
  const StageFit ffn = Of(Fit(device, TinyShape(), Dtype::kBf16, {1, 1, 1}), Stage::kFfn);
  // Two layers of 96 parameters on two chips.
  EXPECT_EQ(ffn.parts.memory, 2 * 96.0);
  EXPECT_EQ(ffn.parts.compute, 2 * 96.0);
  EXPECT_EQ(ffn.parts.fixed, 2 * 2.0);
  EXPECT_EQ(ffn.all_reduce(), 2 * 3.0);
  EXPECT_EQ(ffn.time, Duration::Seconds(2 * (96 + 2 + 3)));
  EXPECT_DOUBLE_EQ(ffn.Share(ffn.parts.fixed), 4.0 / 202);
}

TEST(StageFit, LargestPartIsTheBound) {
  const auto bound = [](double bandwidth, double flops, double fixed, double all_reduce,
                        double link) {
    model::Device device = UnitDevice(2);
    device.chip.bandwidth_bytes_per_s = Known(bandwidth);
    device.chip.dtypes[Dtype::kBf16].peak_flops = Known(flops);
    device.chip.dtypes[Dtype::kBf16].layer_seconds = Known(fixed);
    device.all_reduce.base_seconds = Known(all_reduce);
    device.link.bytes_per_s = Known(link);
    return Of(Fit(device, TinyShape(), Dtype::kBf16, {1, 1, 1}), Stage::kFfn).bound;
  };
  EXPECT_EQ(bound(1, 1e9, 1e-3, 1e-3, 1e9), Bound::kMemory);
  EXPECT_EQ(bound(1e9, 1, 1e-3, 1e-3, 1e9), Bound::kCompute);
  EXPECT_EQ(bound(1e9, 1e9, 1, 1e-3, 1e9), Bound::kFixed);
  EXPECT_EQ(bound(1e9, 1e9, 1e-3, 1, 1e9), Bound::kAllReduce);
  EXPECT_EQ(bound(1e9, 1e9, 1e-3, 1e-3, 1), Bound::kLink);
}

TEST(StageFit, TokensAndDollarsAreOfOneDeviceKeptBusy) {
  model::Device device = UnitDevice();
  device.chip.memory_bytes = Known(1e6);
  device.link.bytes_per_s = Known(1e30);
  device.chip.dollars_per_hour = Known(3600);
  const FitLoad load{10, 50, 50};
  const DeviceFit fit = Fit(device, TinyShape(), Dtype::kBf16, load);
  const StageFit ffn = Of(fit, Stage::kFfn);
  EXPECT_DOUBLE_EQ(ffn.tokens_per_s, 10 / ffn.time.seconds());
  EXPECT_DOUBLE_EQ(*ffn.dollars_per_mtok, 1e6 / ffn.tokens_per_s);  // a dollar a second
  EXPECT_DOUBLE_EQ(Of(fit, Stage::kPrefill).tokens_per_s,
                   50 / Of(fit, Stage::kPrefill).time.seconds());
  // KV of 10 x 50 positions of 2 layers is 16,000 bytes: on devices with room for 5,000 beside the
  // weights (416 bytes) four are needed, each with a part of the batch.
  device.chip.memory_bytes = Known(5000);
  const StageFit spread = Of(Fit(device, TinyShape(), Dtype::kBf16, load), Stage::kAttention);
  EXPECT_EQ(spread.devices, 4u);
  EXPECT_EQ(spread.rows, 3u);
  EXPECT_DOUBLE_EQ(spread.tokens_per_s, 10 / 4.0 / spread.time.seconds());
  device.link.bytes_per_s = Known(1e-3);
  const StageFit linked = Of(Fit(device, TinyShape(), Dtype::kBf16, load), Stage::kFfn);
  EXPECT_DOUBLE_EQ(linked.tokens_per_s, 10 / linked.link_time.seconds());
}

TEST(StageFit, UnknownPriceIsNoPrice) {
  const DeviceFit fit =
      Fit(*Shipped().FindDevice("groq3-lpx-rack"), Llama70B(), Dtype::kFp8, FitLoad());
  for (const StageFit& stage : fit.stages) EXPECT_FALSE(stage.dollars_per_mtok.has_value());
}

TEST(StageFit, BadLoadsAreRefused) {
  const auto error = [](const FitLoad& load) {
    return FitDevice(UnitDevice(), Llama70B(), {}, load).status();
  };
  EXPECT_EQ(error({0, 1, 1}), absl::InvalidArgumentError("batch: 0 is not in [1, 65536]"));
  EXPECT_EQ(error({65537, 1, 1}), absl::InvalidArgumentError("batch: 65537 is not in [1, 65536]"));
  EXPECT_EQ(error({1, 131073, 1}),
            absl::InvalidArgumentError(
                "context: 131073 is not in [1, 131072], the context of 'llama-3-70b'"));
  EXPECT_EQ(error({1, 1, 0}), absl::InvalidArgumentError("prompt: 0 is not in [1, 131072], the "
                                                         "context of 'llama-3-70b'"));
}

TEST(StageFit, DeviceWithoutFiguresOrMemoryIsRefused) {
  EXPECT_EQ(FitDevice(*Shipped().FindDevice("cs-3"), Llama70B(), {Dtype::kFp8}, {}).status(),
            absl::InvalidArgumentError("device 'cs-3': no figures for fp8 weights; it has bf16"));
  model::Device device = UnitDevice();
  device.chip.workspace_bytes = Known(100e9);
  EXPECT_EQ(FitDevice(device, Llama70B(), {}, {}).status(),
            absl::InvalidArgumentError("device 'unit': 100 GB of usable memory are no more than "
                                       "its workspace of 100 GB"));
}

TEST(UsualWeights, AreEightBitWhereTheChipHasThem) {
  const auto usual = [](const char* chip) { return UsualWeights(*Shipped().FindChip(chip)); };
  EXPECT_EQ(usual("h100-sxm"), Dtype::kFp8);
  EXPECT_EQ(usual("groq3-lpu"), Dtype::kFp8);
  EXPECT_EQ(usual("a100-sxm"), Dtype::kInt8);
  EXPECT_EQ(usual("cs-3"), Dtype::kBf16);
  model::Chip chip = *Shipped().FindChip("groq3-lpu");
  chip.dtypes.at(Dtype::kFp8).peak_flops = {};
  EXPECT_FALSE(UsualWeights(chip).has_value());
}

TEST(FiguresBehind, AreThoseThatTheTimesStandOn) {
  const auto names = [](const char* device, const model::ModelShape& shape, Dtype weights) {
    std::vector<std::string> found;
    for (const model::NamedFigure& figure :
         FiguresBehind(Fit(*Shipped().FindDevice(device), shape, weights, {1, 1, 1}), shape))
      found.push_back(figure.name);
    return found;
  };
  const auto has = [](const std::vector<std::string>& all, const char* name) {
    return std::count(all.begin(), all.end(), name) == 1;
  };
  const std::vector<std::string> dense = names("h100-x8", Llama70B(), Dtype::kFp8);
  for (const char* name :
       {"memory_bytes", "bandwidth_bytes_per_s", "dollars_per_hour", "peak_flops", "exponent",
        "layer_seconds", "prefill_layer_seconds", "all_reduce.base_seconds", "link.bytes_per_s"})
    EXPECT_TRUE(has(dense, name)) << name;
  for (const char* name : {"power_watts", "scale_up.bytes_per_s", "scale_out.bytes_per_s",
                           "expert_factor", "link.latency_seconds"})
    EXPECT_FALSE(has(dense, name)) << name;
  EXPECT_TRUE(has(names("h100-x8", DeepSeekV3(), Dtype::kFp8), "expert_factor"));
  const std::vector<std::string> group = names("cs-3-x4", Llama70B(), Dtype::kBf16);
  EXPECT_TRUE(has(group, "layer_seconds.bf16"));  // measured of the whole system
  EXPECT_FALSE(has(group, "layer_seconds"));
}

}  // namespace
}  // namespace tandem::cost
