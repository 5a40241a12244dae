#include "scheduler/cost/work.h"

#include <gtest/gtest.h>

#include <vector>

#include "tests/unit/scheduler/cost/shapes.h"

namespace tandem::cost {
namespace {

using model::Dtype;
using model::ModelShape;
using model::Precision;

const Precision kBf16;
const FfnShard kWhole;

AttentionRows RowsOf(const ModelShape& shape, const std::vector<uint32_t>& context) {
  return AttentionRows::Of(shape, context);
}

// Source: facts/models.md: three matrices of 469.8 MB are 1.409 GB a layer.
TEST(FfnWork, DenseLayerReadsItsWeightsOnceWhateverTheBatch) {
  const ModelShape shape = Llama70B();
  EXPECT_EQ(FfnWork(shape, kBf16, kWhole, 0, 1).weight_bytes, 3.0 * 8192 * 28672 * 2);
  EXPECT_EQ(FfnWork(shape, kBf16, kWhole, 0, 64).weight_bytes, 3.0 * 8192 * 28672 * 2);
  EXPECT_EQ(FfnWork(shape, kBf16, kWhole, 0, 64).flops, 64 * 2.0 * 3 * 8192 * 28672);
  EXPECT_EQ(FfnWork(shape, kBf16, kWhole, 0, 0).weight_bytes, 0);
}

TEST(FfnWork, BytesFollowTheDtype) {
  const ModelShape shape = Llama70B();
  const double parameters = 3.0 * 8192 * 28672;
  EXPECT_EQ(FfnWork(shape, {Dtype::kFp8}, kWhole, 0, 1).weight_bytes, parameters);
  EXPECT_EQ(FfnWork(shape, {Dtype::kInt4}, kWhole, 0, 1).weight_bytes, parameters * 4.5 / 8);
  EXPECT_EQ(FfnWork(shape, {Dtype::kMxfp4}, kWhole, 0, 1).weight_bytes, parameters * 4.25 / 8);
}

// Source: facts/models.md: 222 of DeepSeek-V3's 256 experts at 64 rows.
TEST(FfnWork, ExpertLayerReadsTheExpertsThatAreTouchedAndTheSharedOne) {
  const ModelShape shape = DeepSeekV3();
  const double expert = 3.0 * 7168 * 2048;
  EXPECT_DOUBLE_EQ(FfnWork(shape, kBf16, kWhole, 3, 1).weight_bytes, (8 + 1) * expert * 2);
  EXPECT_NEAR(FfnWork(shape, kBf16, kWhole, 3, 64).weight_bytes / (expert * 2), 222 + 1, 0.5);
  EXPECT_EQ(FfnWork(shape, kBf16, kWhole, 3, 64).flops, 64 * 9 * 2 * expert);
  // The first three layers are dense.
  EXPECT_EQ(FfnWork(shape, kBf16, kWhole, 2, 64).weight_bytes, 3.0 * 7168 * 18432 * 2);
  EXPECT_EQ(FfnWork(shape, kBf16, kWhole, 2, 64).flops, 64 * 2.0 * 3 * 7168 * 18432);
}

// Source: facts/models.md, "Unique experts touched".
TEST(ExpectedExperts, AreThePublishedOnes) {
  EXPECT_NEAR(ExpectedExperts(256, 8, 1), 8, 1e-9);
  EXPECT_NEAR(ExpectedExperts(256, 8, 8), 57, 0.5);
  EXPECT_NEAR(ExpectedExperts(256, 8, 32), 163, 0.5);
  EXPECT_NEAR(ExpectedExperts(256, 8, 64), 222, 0.5);
  EXPECT_NEAR(ExpectedExperts(256, 8, 128), 252, 0.5);
  EXPECT_NEAR(ExpectedExperts(8, 2, 4), 5.5, 0.05);
  EXPECT_NEAR(ExpectedExperts(8, 2, 16), 7.9, 0.05);
  EXPECT_EQ(ExpectedExperts(8, 2, 0), 0);
}

TEST(FfnShard, ColumnPartsAddUpToTheWhole) {
  const ModelShape shape = Llama70B();
  double bytes = 0, flops = 0;
  uint64_t width = 0;
  for (uint32_t i = 0; i < 3; i++) {
    const FfnShard part{0, FfnShard::kAllLayers, i, 3};
    bytes += FfnWork(shape, kBf16, part, 0, 5).weight_bytes;
    flops += FfnWork(shape, kBf16, part, 0, 5).flops;
    width += ShardWidth(part, 28672);
  }
  EXPECT_EQ(width, 28672u);
  EXPECT_EQ(bytes, FfnWork(shape, kBf16, kWhole, 0, 5).weight_bytes);
  EXPECT_EQ(flops, FfnWork(shape, kBf16, kWhole, 0, 5).flops);
}

TEST(AttentionWork, ReadsWeightsOnceAndEverySequencesKv) {
  const ModelShape shape = Llama70B();
  const Work work = AttentionWork(shape, kBf16, 0, RowsOf(shape, {1000, 3000}));
  const double parameters = static_cast<double>(shape.attention_parameters());
  EXPECT_EQ(work.weight_bytes, 2 * parameters);
  EXPECT_EQ(work.kv_bytes, 4000.0 * 2 * 8 * 128 * 2);  // 8 KV heads serve 64 query heads
  EXPECT_EQ(work.flops, 2 * 2 * parameters + 4.0 * 64 * 128 * 4000);
  EXPECT_EQ(AttentionWork(shape, {Dtype::kBf16, 1}, 0, RowsOf(shape, {1000, 3000})).kv_bytes,
            work.kv_bytes / 2);
  EXPECT_EQ(AttentionWork(shape, kBf16, 0, {}).weight_bytes, 0);
}

// Source: facts/models.md: 70,272 bytes a token, of 61 layers, whatever the heads.
TEST(AttentionWork, MlaReadsOneLatentAPositionAndComputesInIt) {
  const ModelShape shape = DeepSeekV3();
  const Work work = AttentionWork(shape, kBf16, 3, RowsOf(shape, {1000}));
  EXPECT_EQ(work.kv_bytes, 1000 * 70'272.0 / 61);
  const double parameters =
      static_cast<double>(shape.attention_parameters() + shape.router_parameters(3));
  EXPECT_EQ(work.weight_bytes, 2 * parameters);
  EXPECT_EQ(work.flops, 2 * parameters + 2.0 * 128 * (512 + 64 + 512) * 1000);
}

TEST(AttentionWork, WindowBoundsTheWindowedLayersOnly) {
  ModelShape shape = Llama70B();
  shape.window = 100, shape.full_attention_every = 2;
  const AttentionRows rows = RowsOf(shape, {50, 1000});
  EXPECT_EQ(rows.context_tokens, 1050u);
  EXPECT_EQ(rows.windowed_tokens, 150u);
  const double position = 2.0 * 8 * 128 * 2;
  EXPECT_EQ(AttentionWork(shape, kBf16, 0, rows).kv_bytes, 150 * position);
  EXPECT_EQ(AttentionWork(shape, kBf16, 1, rows).kv_bytes, 1050 * position);
}

TEST(AttentionRows, EvenIsExactForEqualContexts) {
  ModelShape shape = Llama70B();
  for (const uint64_t window : {0, 100}) {
    shape.window = window;
    const AttentionRows exact = RowsOf(shape, {700, 700, 700});
    const AttentionRows even = AttentionRows::Even(shape, 3, 2100);
    EXPECT_EQ(even.rows, exact.rows);
    EXPECT_EQ(even.context_tokens, exact.context_tokens);
    EXPECT_EQ(even.windowed_tokens, exact.windowed_tokens);
  }
}

Work Prompt(const ModelShape& shape, uint64_t layer, uint64_t first, uint64_t rows) {
  return PrefillWork(shape, kBf16, layer, PrefillRows::Of(shape, first, rows));
}

TEST(PrefillWork, ChunksAddUpToThePrompt) {
  for (const ModelShape& shape : {Llama70B(), DeepSeekV3()}) {
    const double whole = Prompt(shape, 5, 0, 64).flops;
    EXPECT_DOUBLE_EQ(Prompt(shape, 5, 0, 32).flops + Prompt(shape, 5, 32, 32).flops, whole);
  }
  const ModelShape shape = Llama70B();
  EXPECT_EQ(Prompt(shape, 0, 0, 1).flops, AttentionWork(shape, kBf16, 0, RowsOf(shape, {1})).flops +
                                              FfnWork(shape, kBf16, kWhole, 0, 1).flops);
  EXPECT_EQ(Prompt(shape, 0, 32, 32).kv_bytes, 64.0 * 2 * 8 * 128 * 2);
  EXPECT_EQ(Prompt(shape, 0, 0, 0).flops, 0);
}

TEST(PrefillWork, WindowedChunkAttendsToNoMoreThanTheWindow) {
  ModelShape shape = Llama70B();
  const double without = Prompt(shape, 0, 0, 10).flops - 4.0 * 64 * 128 * 55;
  const auto attended = [&](uint64_t first, uint64_t rows) {
    const double one_row = without / 10;
    return (Prompt(shape, 0, first, rows).flops - one_row * static_cast<double>(rows)) /
           (4.0 * 64 * 128);
  };
  EXPECT_DOUBLE_EQ(attended(0, 10), 55);
  shape.window = 4;
  EXPECT_DOUBLE_EQ(attended(0, 4), 1 + 2 + 3 + 4);
  EXPECT_DOUBLE_EQ(attended(0, 10), 1 + 2 + 3 + 4 * 7);
  EXPECT_DOUBLE_EQ(attended(2, 5), 3 + 4 * 4);
  EXPECT_DOUBLE_EQ(attended(20, 5), 4 * 5);
  EXPECT_EQ(Prompt(shape, 0, 20, 5).kv_bytes, 9.0 * 2 * 8 * 128 * 2);
}

// Goal: chunks of several prompts in one call read the weights once and attend each to its own.
TEST(PrefillWork, PromptsTogetherReadTheWeightsOnce) {
  ModelShape shape = Llama70B();
  shape.window = 4;
  PrefillRows both = PrefillRows::Of(shape, 0, 10);
  both += PrefillRows::Of(shape, 20, 5);
  EXPECT_EQ(both.rows, 15);
  EXPECT_EQ(both.windowed_attended_tokens, 1 + 2 + 3 + 4 * 7 + 4 * 5);
  EXPECT_EQ(both.windowed_kv_tokens, 10 + 9);
  const Work together = PrefillWork(shape, kBf16, 0, both);
  const Work first = Prompt(shape, 0, 0, 10), second = Prompt(shape, 0, 20, 5);
  EXPECT_EQ(together.weight_bytes, first.weight_bytes);
  EXPECT_EQ(together.kv_bytes, first.kv_bytes + second.kv_bytes);
  EXPECT_DOUBLE_EQ(together.flops, first.flops + second.flops);
}

TEST(AttentionWork, AttentionMayBeKeptInAnotherFormat) {
  ModelShape shape = DeepSeekV3();
  Precision nvfp4;
  nvfp4.weights = model::Dtype::kNvfp4;
  const double narrow = AttentionWork(shape, nvfp4, 5, RowsOf(shape, {1})).weight_bytes;
  const double experts = FfnWork(shape, nvfp4, kWhole, 5, 1).weight_bytes;
  shape.attention_dtypes[model::Dtype::kNvfp4] = model::Dtype::kBf16;
  EXPECT_DOUBLE_EQ(AttentionWork(shape, nvfp4, 5, RowsOf(shape, {1})).weight_bytes,
                   narrow * 16 / 4.5);
  EXPECT_EQ(FfnWork(shape, nvfp4, kWhole, 5, 1).weight_bytes, experts);
}

TEST(HeadWork, IsTheOutputMatrixAndEmbeddingIsItsRows) {
  EXPECT_EQ(HeadWork(Llama70B(), kBf16, 3).weight_bytes, 2.0 * 128256 * 8192);
  EXPECT_EQ(HeadWork(Llama70B(), kBf16, 3).flops, 3 * 2.0 * 128256 * 8192);
  EXPECT_EQ(EmbedWork(Llama70B(), kBf16, 3).weight_bytes, 3 * 2.0 * 8192);
}

TEST(HandoffBytes, AreRawF32AndExpertsRoutes) {
  EXPECT_EQ(A2fBytes(Llama70B(), kBf16, 0, 16), 16u * 8192 * 4);
  EXPECT_EQ(F2aBytes(Llama70B(), kBf16, 16), 16u * 8192 * 4);
  EXPECT_EQ(A2fBytes(DeepSeekV3(), kBf16, 2, 16), 16u * 7168 * 4);
  EXPECT_EQ(A2fBytes(DeepSeekV3(), kBf16, 3, 16), 16u * (7168 * 4 + 8 * 8));
  // StepMesh sends 7,168 bytes a row out in fp8 (facts/models.md).
  EXPECT_EQ(A2fBytes(DeepSeekV3(), {Dtype::kFp8, 2, 1}, 0, 1), 7168u);
}

}  // namespace
}  // namespace tandem::cost
