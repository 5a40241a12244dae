#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "scheduler/cost/cycle.h"
#include "scheduler/cost/stage_time.h"

namespace tandem::cost {
namespace {

model::ModelShape Llama70B() {
  model::ModelShape shape;
  shape.layers = 80, shape.hidden = 8192, shape.heads = 64, shape.kv_heads = 8,
  shape.head_dim = 128;
  shape.ffn = 28672, shape.vocabulary = 128256, shape.context_tokens = 131072;
  return shape;
}

// 1 byte and 1 flop a second with perfect efficiency: seconds are bytes and flops.
model::Chip UnitChip(double exponent, double overhead_seconds = 0) {
  model::Chip chip;
  chip.bandwidth_bytes_per_s.value = chip.peak_flops.value = 1;
  chip.bandwidth_efficiency.value = chip.compute_efficiency.value = 1;
  chip.roofline_exponent.value = exponent;
  chip.layer_overhead_seconds.value = overhead_seconds;
  chip.link_bytes_per_s.value = 100;
  chip.link_latency_seconds.value = 2;
  return chip;
}

TEST(LayerTime, CombinesMemoryAndComputeByTheExponentAndAddsTheFixedTime) {
  EXPECT_EQ(LayerTime(UnitChip(0), {3, 4}), Duration::Seconds(4));
  EXPECT_EQ(LayerTime(UnitChip(1), {3, 4}), Duration::Seconds(7));
  EXPECT_EQ(LayerTime(UnitChip(2), {3, 4}), Duration::Seconds(5));
  EXPECT_NEAR(LayerTime(UnitChip(4), {3, 4}).seconds(), 4.284572, 1e-6);  // (81 + 256)^(1/4)
  EXPECT_EQ(LayerTime(UnitChip(2, 10), {3, 4}), Duration::Seconds(15));
  EXPECT_EQ(LayerTime(UnitChip(4, 1), {0, 0}), Duration::Seconds(1));
}

TEST(LayerTime, EfficienciesDivideThePeaks) {
  model::Chip chip = UnitChip(0);
  chip.bandwidth_efficiency.value = 0.5;
  chip.compute_efficiency.value = 0.25;
  EXPECT_EQ(LayerTime(chip, {3, 0}), Duration::Seconds(6));
  EXPECT_EQ(LayerTime(chip, {0, 3}), Duration::Seconds(12));
}

// Source: facts/models.md: three matrices of 469.8 MB are 1.409 GB a layer.
TEST(FfnWork, DenseLayerReadsItsWeightsOnceWhateverTheBatch) {
  EXPECT_EQ(FfnWork(Llama70B(), 1).bytes, 3.0 * 8192 * 28672 * 2);
  EXPECT_EQ(FfnWork(Llama70B(), 64).bytes, FfnWork(Llama70B(), 1).bytes);
  EXPECT_EQ(FfnWork(Llama70B(), 64).flops, 64 * 2.0 * 3 * 8192 * 28672);
}

TEST(FfnWork, ExpertLayerReadsTheExpertsThatAreTouched) {
  model::ModelShape mixtral = Llama70B();
  mixtral.hidden = 4096, mixtral.ffn = 14336, mixtral.experts = 8, mixtral.experts_per_token = 2;
  EXPECT_EQ(FfnWork(mixtral, 1).bytes, 2 * 3.0 * 4096 * 14336 * 2);
  EXPECT_NEAR(FfnWork(mixtral, 8).bytes / FfnWork(mixtral, 1).bytes, 7.2 / 2, 0.01);
  EXPECT_EQ(FfnWork(mixtral, 8).flops, 8 * 2 * 2.0 * 3 * 4096 * 14336);
}

// Source: facts/models.md, "Unique experts touched".
TEST(ExpectedExperts, AreThePublishedOnes) {
  EXPECT_NEAR(ExpectedExperts(256, 8, 1), 8, 1e-9);
  EXPECT_NEAR(ExpectedExperts(256, 8, 8), 57, 0.5);
  EXPECT_NEAR(ExpectedExperts(256, 8, 32), 163, 0.5);
  EXPECT_NEAR(ExpectedExperts(256, 8, 64), 222, 0.5);
  EXPECT_NEAR(ExpectedExperts(256, 8, 128), 252, 0.5);
  EXPECT_NEAR(ExpectedExperts(8, 2, 4), 5.5, 0.05);
  EXPECT_EQ(ExpectedExperts(0, 0, 9), 1);
}

TEST(AttentionWork, ReadsWeightsOnceAndEverySequencesKv) {
  const model::ModelShape shape = Llama70B();
  const double weights = 2.0 * shape.attention_parameters();
  const std::vector<uint32_t> context = {1000, 3000};
  EXPECT_EQ(AttentionWork(shape, context).bytes, weights + 4000.0 * 2 * 8 * 128 * 2);
  EXPECT_EQ(AttentionWork(shape, context).flops,
            2 * 2.0 * shape.attention_parameters() + 4.0 * 64 * 128 * 4000);
}

TEST(PrefillWork, ChunksAddUpToThePrompt) {
  const model::ModelShape shape = Llama70B();
  const double whole = PrefillWork(shape, 0, 64).flops;
  EXPECT_DOUBLE_EQ(PrefillWork(shape, 0, 32).flops + PrefillWork(shape, 32, 32).flops, whole);
  EXPECT_EQ(PrefillWork(shape, 0, 1).flops,
            AttentionWork(shape, std::vector<uint32_t>{1}).flops + FfnWork(shape, 1).flops);
}

TEST(HeadWork, IsTheOutputMatrix) {
  EXPECT_EQ(HeadWork(Llama70B(), 3).bytes, 2.0 * 128256 * 8192);
  EXPECT_EQ(HeadWork(Llama70B(), 3).flops, 3 * 2.0 * 128256 * 8192);
}

// Source: facts/models.md: 131,072 tokens are 42.95 GB.
TEST(Bytes, OfKvAndHandoffs) {
  EXPECT_EQ(KvBytes(Llama70B(), 131072), 42'949'672'960u);
  EXPECT_EQ(HandoffBytes(Llama70B(), 16), 16u * 8192 * 4);
  EXPECT_EQ(LinkOccupancy(UnitChip(0), 300), Duration::Seconds(3));
  EXPECT_EQ(TransferTime(UnitChip(0), 300), Duration::Seconds(5));
}

CycleTimes Times(int64_t a, int64_t f, int64_t a2f, int64_t f2a, int64_t s = 0) {
  const auto us = [](int64_t n) { return Duration::Microseconds(n); };
  return {us(a), us(f), us(a2f), us(f2a), us(s), us(s)};
}

TEST(Cycle, IsBoundByComputeByTheRoundTripOrByTheLink) {
  EXPECT_EQ(CycleTime(Times(50, 30, 5, 5), 3), Duration::Microseconds(50));
  EXPECT_EQ(CycleTime(Times(30, 50, 5, 5), 3), Duration::Microseconds(50));
  EXPECT_EQ(CycleTime(Times(30, 30, 20, 20), 1), Duration::Microseconds(100));
  EXPECT_EQ(CycleTime(Times(30, 30, 20, 20), 2), Duration::Microseconds(50));
  EXPECT_EQ(CycleTime(Times(30, 30, 20, 20, 60), 4), Duration::Microseconds(60));
}

TEST(Cycle, StepIsFillAndACycleForEveryFurtherCall) {
  EXPECT_EQ(FillTime(Times(30, 30, 20, 20)), Duration::Microseconds(100));
  EXPECT_EQ(StepTime(Times(30, 30, 20, 20), 2, 10, Duration::Microseconds(7)),
            Duration::Microseconds(100 + 50 * 19 + 7));
  // One micro-batch: every layer waits for its own round trip.
  EXPECT_EQ(StepTime(Times(30, 30, 20, 20), 1, 10, Duration()), Duration::Microseconds(1000));
}

// The forms others use assume blocking sends or one serial link (facts/afd.md): upper bounds of
// ours.
TEST(Cycle, FormsOfOthersAreUpperBounds) {
  for (int64_t a = 10; a <= 100; a += 30) {
    for (int64_t f = 10; f <= 100; f += 30) {
      for (int64_t c = 0; c <= 60; c += 20) {
        const CycleTimes times = Times(a, f, c, c, c);
        EXPECT_LE(CycleTime(times, 2),
                  std::max(times.attention + times.a2f, times.ffn + times.f2a));
        EXPECT_LE(CycleTime(times, 3),
                  std::max({times.attention, times.ffn, times.a2f + times.f2a}));
      }
    }
  }
}

}  // namespace
}  // namespace tandem::cost
