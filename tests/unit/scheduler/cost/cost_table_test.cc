#include "scheduler/cost/cost_table.h"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/scheduler/cost/shapes.h"

namespace tandem::cost {
namespace {

using model::Dtype;

const FfnShard kWhole;

CostTable Table(const model::Device& device, const model::ModelShape& shape,
                const CostOptions& options = {}) {
  auto table = CostTable::Create(device, shape, options);
  EXPECT_TRUE(table.ok()) << table.status();
  return *table;
}

model::DtypeFigures& Figures(model::Device& device) { return device.chip.dtypes[Dtype::kBf16]; }

Duration Ffn(const model::Device& device, uint64_t rows = 1) {
  return Table(device, TinyShape()).FfnLayer(kWhole, 0, rows);
}

// The tiny model's FFN has 96 parameters: 192 bytes, and 192 flops a row.
TEST(CostTable, MemoryAndComputeAreCombinedByTheExponent) {
  model::Device device = UnitDevice();
  Figures(device).compute_efficiency = Known(0.75);  // 192 flops take 256 s
  EXPECT_EQ(Ffn(device), Duration::Seconds(256));
  Figures(device).exponent = Known(1);
  EXPECT_EQ(Ffn(device), Duration::Seconds(192 + 256));
  Figures(device).exponent = Known(2);
  EXPECT_EQ(Ffn(device), Duration::Seconds(320));
  Figures(device).exponent = Known(4);
  EXPECT_NEAR(Ffn(device).seconds(), 64 * 4.284572, 1e-4);  // (81 + 256)^(1/4)
}

TEST(CostTable, EfficienciesDivideThePeaks) {
  model::Device device = UnitDevice();
  Figures(device).bandwidth_efficiency = Known(0.5);
  EXPECT_EQ(Ffn(device), Duration::Seconds(384));
  Figures(device).compute_efficiency = Known(0.25);
  EXPECT_EQ(Ffn(device), Duration::Seconds(768));
  EXPECT_EQ(Ffn(device, 2), Duration::Seconds(1536));
}

TEST(CostTable, FixedTimeIsHalvedBetweenTheCallsAndExpertsTakeMore) {
  model::Device device = UnitDevice();
  device.chip.bandwidth_bytes_per_s = Figures(device).peak_flops = Known(1e30);
  Figures(device).layer_seconds = Known(40e-6);
  Figures(device).expert_factor = Known(2);
  const CostTable dense = Table(device, TinyShape());
  const AttentionRows rows = AttentionRows::Even(TinyShape(), 1, 9);
  EXPECT_EQ(dense.AttentionLayer(0, rows), Duration::Microseconds(20));
  EXPECT_EQ(dense.FfnLayer(kWhole, 0, 1), Duration::Microseconds(20));
  const CostTable experts = Table(device, DeepSeekV3());
  EXPECT_EQ(experts.AttentionLayer(3, rows), Duration::Microseconds(20));
  EXPECT_EQ(experts.FfnLayer(kWhole, 3, 1), Duration::Microseconds(60));
  EXPECT_EQ(experts.FfnLayer(kWhole, 2, 1), Duration::Microseconds(20));  // a dense layer of it
}

TEST(CostTable, DevicesOwnFixedTimeReplacesTheChips) {
  model::Device device = UnitDevice();
  device.chip.bandwidth_bytes_per_s = Figures(device).peak_flops = Known(1e30);
  Figures(device).layer_seconds = Known(40e-6);
  device.layer_seconds[Dtype::kBf16] = Known(60e-6);
  EXPECT_EQ(Ffn(device), Duration::Microseconds(30));
}

// Source: facts/cost-fit.md: 3.9 us + 2.1 us (log2 tp - 1) each, and 3.05 x bytes / link.
TEST(CostTable, AllReduceIsOneACallAndGrowsWithTheGroupsLogarithm) {
  const auto call = [](uint32_t tp, double link, uint64_t rows) {
    model::Device device = UnitDevice(tp);
    device.chip.bandwidth_bytes_per_s = Figures(device).peak_flops = Known(1e30);
    device.all_reduce = {Known(3.9e-6), Known(2.1e-6), Known(link)};
    const CostTable table = Table(device, TinyShape());
    const AttentionRows attended = AttentionRows::Even(TinyShape(), rows, rows);
    EXPECT_EQ(table.AttentionLayer(0, attended), table.FfnLayer(kWhole, 0, rows));
    return table.FfnLayer(kWhole, 0, rows);
  };
  EXPECT_EQ(call(1, 1, 1), Duration());
  EXPECT_EQ(call(2, 1e30, 1), Duration::Nanoseconds(3900));
  EXPECT_EQ(call(4, 1e30, 1), Duration::Nanoseconds(6000));
  EXPECT_EQ(call(8, 1e30, 1), Duration::Nanoseconds(8100));
  EXPECT_EQ(call(6, 1e30, 1), Duration::Nanoseconds(8100));  // as the next power of two
  // 100 rows of 4 bf16 elements are 800 bytes.
  EXPECT_NEAR(call(2, 1e6, 100).seconds(), 3.9e-6 + 3.05 * 800 / 1e6, 2e-9);
}

TEST(CostTable, WeightsAndFlopsAreDividedByTp) {
  EXPECT_EQ(Ffn(UnitDevice(1), 4), Duration::Seconds(768));
  EXPECT_EQ(Ffn(UnitDevice(4), 4), Duration::Seconds(192));
  // Chips beyond tp are other stages of a pipeline: they hold weights, and make no layer faster.
  model::Device pipeline = UnitDevice(4);
  pipeline.count = 16;
  EXPECT_EQ(Ffn(pipeline, 4), Duration::Seconds(192));
  Figures(pipeline).peak_flops = Known(1e30);
  EXPECT_EQ(Ffn(pipeline, 4), Duration::Seconds(48));
}

TEST(CostTable, KvIsReadSlowerAndDividedByKvHeadsAtMost) {
  const auto kv_seconds = [](const model::ModelShape& shape, uint32_t tp) {
    model::Device device = UnitDevice(tp);
    device.chip.bandwidth_bytes_per_s = Known(1e6);
    Figures(device).peak_flops = Known(1e30);
    const CostTable table = Table(device, shape);
    return 1e6 * (table.AttentionLayer(0, AttentionRows::Even(shape, 1, 1'000'000)) -
                  table.AttentionLayer(0, AttentionRows::Even(shape, 1, 0)))
                     .seconds();
  };
  const double whole = 1e6 * 4096 / 0.784;
  EXPECT_NEAR(kv_seconds(Llama70B(), 1), whole, 1e3);
  EXPECT_NEAR(kv_seconds(Llama70B(), 8), whole / 8, 1e3);
  EXPECT_NEAR(kv_seconds(Llama70B(), 16), whole / 8, 1e3);
  EXPECT_NEAR(kv_seconds(DeepSeekV3(), 8), 1e6 * 576 * 2 / 0.784, 1e3);  // MLA is not divided
}

TEST(CostTable, PrefillHasItsOwnEfficiencyAndFixedTime) {
  model::Device device = UnitDevice();
  device.chip.bandwidth_bytes_per_s = Known(1e30);
  Figures(device).prefill_compute_efficiency = Known(0.5);
  Figures(device).prefill_layer_seconds = Known(7);
  const CostTable table = Table(device, TinyShape());
  const double flops = PrefillWork(TinyShape(), {}, 0, PrefillRows::Of(TinyShape(), 3, 5)).flops;
  EXPECT_EQ(table.PrefillLayer(0, 3, 5), Duration::FromSeconds(flops / 0.5 + 7));
  EXPECT_EQ(table.Prefill(3, 5),
            table.PrefillLayer(0, 3, 5) + table.PrefillLayer(1, 3, 5) + table.Embed(5));
  EXPECT_EQ(table.PrefillLayer(0, 3, 0), Duration());
}

TEST(CostTable, StepIsTheSumOfItsCallsAndTheEnginesConstants) {
  CostOptions options;
  options.engine.per_step = Duration::Microseconds(820);
  options.engine.per_sequence = Duration::Microseconds(21);
  const CostTable table = Table(UnitDevice(), TinyShape(), options);
  const AttentionRows rows = AttentionRows::Even(TinyShape(), 3, 30);
  Duration calls = table.Embed(3) + table.Head(3);
  for (uint64_t layer = 0; layer < 2; layer++)
    calls += table.AttentionLayer(layer, rows) + table.FfnLayer(kWhole, layer, 3);
  EXPECT_EQ(table.DecodeStep(rows), calls + Duration::Microseconds(820 + 3 * 21));
  EXPECT_EQ(table.StepOverhead(3), Duration::Microseconds(820 + 3 * 21));
  EXPECT_EQ(Table(UnitDevice(), TinyShape()).StepOverhead(3), Duration());
}

// A model whose layers are of several kinds: the step counts each kind's layers.
TEST(CostTable, StepCountsLayersOfEveryKind) {
  model::ModelShape shape = DeepSeekV3();
  shape.window = 5, shape.full_attention_every = 4;
  model::Device device = UnitDevice();
  device.chip.bandwidth_bytes_per_s = Figures(device).peak_flops = Known(1e12);
  const CostTable table = Table(device, shape);
  const AttentionRows rows = AttentionRows::Even(shape, 3, 30);
  Duration decode = table.Embed(3) + table.Head(3), prompt = table.Embed(7);
  for (uint64_t layer = 0; layer < shape.layers; layer++) {
    decode += table.AttentionLayer(layer, rows) + table.FfnLayer(kWhole, layer, 3);
    prompt += table.PrefillLayer(layer, 2, 7);
  }
  EXPECT_EQ(table.DecodeStep(rows), decode);
  EXPECT_EQ(table.Prefill(2, 7), prompt);
}

TEST(CostTable, AnEnginesFactorsMultiplyWhatCallsAreMadeOf) {
  model::Device device = UnitDevice(2);
  Figures(device).layer_seconds = Known(10);
  Figures(device).prefill_layer_seconds = Known(4);
  device.all_reduce = {Known(6), Known(0), Known(100)};
  CostOptions options;
  options.engine.factors = {.memory = 2,
                            .kv = 3,
                            .compute = 5,
                            .fixed = 7,
                            .all_reduce = 11,
                            .prefill_compute = 13,
                            .prefill_fixed = 17};
  const CostTable plain = Table(device, TinyShape());
  const CostTable slow = Table(device, TinyShape(), options);
  const AttentionRows rows = AttentionRows::Even(TinyShape(), 2, 20);
  const CallParts ffn = plain.FfnParts(kWhole, 0, 2), ffn_slow = slow.FfnParts(kWhole, 0, 2);
  EXPECT_DOUBLE_EQ(ffn_slow.memory, 2 * ffn.memory);
  EXPECT_DOUBLE_EQ(ffn_slow.compute, 5 * ffn.compute);
  EXPECT_DOUBLE_EQ(ffn_slow.fixed, 7 * ffn.fixed);
  EXPECT_DOUBLE_EQ(ffn_slow.all_reduce_latency, 11 * ffn.all_reduce_latency);
  EXPECT_DOUBLE_EQ(ffn_slow.all_reduce_bytes, 11 * ffn.all_reduce_bytes);
  const AttentionRows none = AttentionRows::Even(TinyShape(), 2, 0);
  EXPECT_DOUBLE_EQ(
      slow.AttentionParts(0, rows).memory - slow.AttentionParts(0, none).memory,
      6 * (plain.AttentionParts(0, rows).memory - plain.AttentionParts(0, none).memory));
  const PrefillRows prompt = PrefillRows::Of(TinyShape(), 0, 3);
  EXPECT_DOUBLE_EQ(slow.PrefillParts(0, prompt).compute,
                   13 * plain.PrefillParts(0, prompt).compute);
  EXPECT_DOUBLE_EQ(slow.PrefillParts(0, prompt).fixed, 17 * plain.PrefillParts(0, prompt).fixed);
}

TEST(CostTable, HeadReadsItsMatrixWithoutFixedTime) {
  model::Device device = UnitDevice();
  Figures(device).layer_seconds = Known(40e-6);
  EXPECT_EQ(Table(device, TinyShape()).Head(1), Duration::Seconds(2 * 10 * 4));
  EXPECT_EQ(Table(device, TinyShape()).Embed(3), Duration::Seconds(3 * 2 * 4));
}

TEST(CostTable, NoCallTakesLongerThanTheLongest) {
  model::Device device = UnitDevice();
  device.chip.bandwidth_bytes_per_s = Known(1e-3);
  EXPECT_EQ(Ffn(device), Duration::Seconds(192'000));
  device.chip.bandwidth_bytes_per_s = Known(1e-9);
  EXPECT_EQ(Ffn(device), Duration::Seconds(1'000'000));
}

TEST(CostTable, CallsWithoutRowsTakeNoTime) {
  model::Device device = UnitDevice(2);
  Figures(device).layer_seconds = Known(1);
  device.all_reduce.base_seconds = Known(1);
  const CostTable table = Table(device, TinyShape());
  EXPECT_EQ(table.AttentionLayer(0, {}), Duration());
  EXPECT_EQ(table.FfnLayer(kWhole, 0, 0), Duration());
  EXPECT_EQ(table.Head(0), Duration());
}

TEST(CostTable, PerturbationDrawsOneFactorForEachCoefficient) {
  const auto perturbed = [](uint64_t seed, double perturbation) {
    CostOptions options;
    options.perturbation = perturbation;
    options.seed = seed;
    return Table(UnitDevice(), TinyShape(), options);
  };
  const double exact = Ffn(UnitDevice()).seconds();
  EXPECT_EQ(perturbed(1, 0).FfnLayer(kWhole, 0, 1), Ffn(UnitDevice()));
  double smallest = 1e9, largest = 0, link_and_ffn_agree = 0;
  for (uint64_t seed = 1; seed <= 200; seed++) {
    const CostTable table = perturbed(seed, 0.2);
    const double factor = exact / table.FfnLayer(kWhole, 0, 1).seconds();
    EXPECT_EQ(table.FfnLayer(kWhole, 0, 1), perturbed(seed, 0.2).FfnLayer(kWhole, 0, 1));
    smallest = std::min(smallest, factor);
    largest = std::max(largest, factor);
    link_and_ffn_agree += std::abs(table.link().bytes_per_s / 100 - factor) < 1e-3;
  }
  EXPECT_GE(smallest, 0.8 - 1e-9);
  EXPECT_LT(smallest, 0.85);
  EXPECT_LE(largest, 1.2 + 1e-9);
  EXPECT_GT(largest, 1.1);
  EXPECT_LT(link_and_ffn_agree, 20);
}

TEST(CostTable, WhatTheDeviceHasNoFigureForIsRefused) {
  CostOptions options;
  options.precision.weights = Dtype::kFp8;
  EXPECT_EQ(CostTable::Create(UnitDevice(), TinyShape(), options).status(),
            absl::InvalidArgumentError("device 'unit': no figures for fp8 weights; it has bf16"));
  model::Device device = UnitDevice();
  Figures(device).peak_flops = {0, model::Mark::kUnknown, "looked for, not found"};
  EXPECT_EQ(CostTable::Create(device, TinyShape(), {}).status(),
            absl::InvalidArgumentError(
                "device 'unit': peak_flops of bf16 is unknown: looked for, not found"));
  options = {};
  for (const double bad : {-0.1, 0.95, std::nan("")}) {
    options.perturbation = bad;
    EXPECT_FALSE(CostTable::Create(UnitDevice(), TinyShape(), options).ok()) << bad;
  }
}

TEST(CostTable, PriceIsTheDevices) {
  model::Device device = UnitDevice(2);
  EXPECT_FALSE(Table(device, TinyShape()).dollars_per_second().has_value());
  device.chip.dollars_per_hour = Known(3.6);
  EXPECT_DOUBLE_EQ(*Table(device, TinyShape()).dollars_per_second(), 2 * 3.6 / 3600);
}

TEST(LinkSpeed, SlowerEndDecides) {
  const LinkSpeed slow{100, 2}, fast{1000, 5};
  EXPECT_EQ(slow.With(fast).Occupancy(300), Duration::Seconds(3));
  EXPECT_EQ(fast.With(slow).Transfer(300), Duration::Seconds(8));
  EXPECT_EQ(fast.Transfer(0), Duration::Seconds(5));
  EXPECT_EQ(Table(UnitDevice(), TinyShape()).link().Transfer(300), Duration::Seconds(5));
}

// One nanosecond on every machine: these were computed once, and only a change of formula or figure
// may change them.
TEST(CostTable, NanosecondsAreTheSameEverywhere) {
  model::Device device = UnitDevice(8);
  device.chip.bandwidth_bytes_per_s = Known(3.35e12);
  Figures(device) = {Known(989e12), Known(0.94), Known(0.72), Known(4),
                     Known(36e-6),  Known(2.06), Known(0.60), Known(165e-6)};
  device.all_reduce = {Known(3.9e-6), Known(2.1e-6), Known(450e9)};
  const CostTable table = Table(device, Llama70B());
  const AttentionRows rows = AttentionRows::Even(Llama70B(), 64, 64 * 2048);
  EXPECT_EQ(table.AttentionLayer(0, rows).nanoseconds(), 72378);
  EXPECT_EQ(table.FfnLayer(kWhole, 0, 64).nanoseconds(), 89238);
  EXPECT_EQ(table.PrefillLayer(0, 0, 2048).nanoseconds(), 1372609);
  EXPECT_EQ(Table(device, DeepSeekV3()).FfnLayer(kWhole, 3, 64).nanoseconds(), 851714);
}

}  // namespace
}  // namespace tandem::cost
