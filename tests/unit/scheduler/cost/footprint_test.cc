#include "scheduler/cost/footprint.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include "services/runtime/catalog_files.h"
#include "tests/unit/scheduler/cost/shapes.h"

namespace tandem::cost {
namespace {

using model::Dtype;
using model::Precision;

const Precision kBf16;
const Precision kFp8{Dtype::kFp8};

Holding Attention() { return {false, true, std::nullopt}; }
Holding Ffn(FfnShard shard = {}) { return {false, false, shard}; }

double Gigabytes(uint64_t bytes) { return static_cast<double>(bytes) / 1e9; }

// Source: facts/models.md.
TEST(WeightBytes, StagesAddUpToTheModel) {
  for (const model::ModelShape& shape : {Llama70B(), DeepSeekV3()}) {
    const uint64_t whole = WeightBytes(shape, kBf16, Holding::Everything());
    EXPECT_EQ(whole, shape.parameters() * 2);
    EXPECT_EQ(WeightBytes(shape, kBf16, {true, false, std::nullopt}), whole);
    EXPECT_EQ(WeightBytes(shape, kBf16, Attention()) + WeightBytes(shape, kBf16, Ffn()), whole);
    EXPECT_EQ(WeightBytes(shape, kBf16, {false, true, FfnShard()}), whole);
  }
  EXPECT_NEAR(Gigabytes(WeightBytes(Llama70B(), kBf16, Holding::Everything())), 141.1, 0.05);
  EXPECT_NEAR(Gigabytes(WeightBytes(Llama70B(), {Dtype::kInt4}, Holding::Everything())), 39.7,
              0.05);
  EXPECT_NEAR(Gigabytes(WeightBytes(Llama70B(), kBf16, Ffn())), 112.7, 0.05);
}

TEST(WeightBytes, LayerAndColumnShardsAddUpToTheFfn) {
  for (const model::ModelShape& shape : {Llama70B(), DeepSeekV3()}) {
    const uint64_t whole = WeightBytes(shape, kBf16, Ffn());
    EXPECT_EQ(WeightBytes(shape, kBf16, Ffn({0, 20, 0, 1})) +
                  WeightBytes(shape, kBf16, Ffn({20, FfnShard::kAllLayers, 0, 1})),
              whole);
    EXPECT_EQ(WeightBytes(shape, kBf16, Ffn({0, FfnShard::kAllLayers, 0, 3})) +
                  WeightBytes(shape, kBf16, Ffn({0, FfnShard::kAllLayers, 1, 3})) +
                  WeightBytes(shape, kBf16, Ffn({0, FfnShard::kAllLayers, 2, 3})),
              whole);
  }
}

TEST(WeightBytes, TiedEmbeddingIsHeldOnce) {
  model::ModelShape shape = Llama70B();
  const uint64_t two = WeightBytes(shape, kBf16, Attention());
  shape.tied_embeddings = true;
  EXPECT_EQ(two - WeightBytes(shape, kBf16, Attention()), 2u * 128256 * 8192);
}

// Source: facts/models.md: 131,072 tokens are 42.95 GB, 64 sequences of them 2.749 TB.
TEST(KvBytes, AreThoseOfTheFacts) {
  EXPECT_EQ(KvBytes(Llama70B(), kBf16, 131072), 42'949'672'960u);
  EXPECT_NEAR(Gigabytes(64 * KvBytes(Llama70B(), kBf16, 131072)), 2749, 1);
  EXPECT_EQ(KvBytesPerToken(Llama70B(), kBf16), 327'680u);
  EXPECT_EQ(KvRowBytes(Llama70B(), kBf16), 4096u);
  EXPECT_EQ(KvBytesPerToken(DeepSeekV3(), kBf16), 70'272u);
  EXPECT_EQ(KvBytesPerToken(Llama70B(), {Dtype::kBf16, 1}), 163'840u);
}

TEST(KvBytes, WindowedLayersStopGrowing) {
  model::ModelShape shape = Llama70B();
  shape.window = 100, shape.full_attention_every = 4;  // 20 of 80 are full
  EXPECT_EQ(KvBytes(shape, kBf16, 50), 80u * 50 * 4096);
  EXPECT_EQ(KvBytes(shape, kBf16, 1000), (20u * 1000 + 60 * 100) * 4096);
}

TEST(KvCopies, TensorParallelSetCopiesWhatItCannotDivide) {
  EXPECT_EQ(KvCopies(Llama70B(), UnitDevice(1)), 1u);
  EXPECT_EQ(KvCopies(Llama70B(), UnitDevice(8)), 1u);
  EXPECT_EQ(KvCopies(Llama70B(), UnitDevice(16)), 2u);
  EXPECT_EQ(KvCopies(DeepSeekV3(), UnitDevice(8)), 8u);
  const Footprint latent = FootprintOf(UnitDevice(8), DeepSeekV3(), kBf16, Attention(), 1000);
  EXPECT_EQ(latent.kv, 8u * 1000 * 70'272);
}

TEST(CheckFits, SaysBothNumbers) {
  const model::Device device = UnitDevice();  // 100 GB
  const Footprint whole = FootprintOf(device, Llama70B(), kBf16, Holding::Everything(), 10'000);
  EXPECT_EQ(
      CheckFits(device, Llama70B(), whole),
      absl::InvalidArgumentError(
          "device 'unit': 144.38 GB of 'llama-3-70b' (weights 141.1 GB, KV 3.28 GB, workspace "
          "0 GB) exceed 100 GB of usable memory"));
  EXPECT_TRUE(CheckFits(device, Llama70B(),
                        FootprintOf(device, Llama70B(), kFp8, Holding::Everything(), 10'000))
                  .ok());
}

TEST(KvTokensThatFit, AreWhatWeightsAndWorkspaceLeave) {
  model::Device device = UnitDevice(2);
  device.chip.usable_memory = Known(0.9);
  device.chip.workspace_bytes = Known(3e9);
  const uint64_t tokens = KvTokensThatFit(device, Llama70B(), kFp8, Holding::Everything());
  EXPECT_NEAR(static_cast<double>(tokens), (2 * 0.9 * 100e9 - 2 * 3e9 - 70.55e9) / 327'680, 200);
  const auto with = [&](uint64_t count) {
    return CheckFits(device, Llama70B(),
                     FootprintOf(device, Llama70B(), kFp8, Holding::Everything(), count));
  };
  EXPECT_TRUE(with(tokens).ok());
  EXPECT_FALSE(with(tokens + 1).ok());
  EXPECT_EQ(KvTokensThatFit(UnitDevice(), Llama70B(), kBf16, Holding::Everything()), 0u);
}

// The systems of issue 5, each on the device it stands for.
TEST(CheckFits, PublishedSystemsFitAndTheirHalvesDoNot) {
  const auto catalog =
      LoadCatalog({absl::StrCat(std::getenv("TANDEM_SOURCE_DIR"), "/scheduler/model/catalog")});
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  const auto fits = [&](const char* device, const char* shape, Dtype weights,
                        const Holding& holding, uint64_t kv_tokens) {
    const auto found = *catalog->FindDevice(device);
    const auto model = *catalog->FindModel(shape);
    return CheckFits(found, model, FootprintOf(found, model, {weights}, holding, kv_tokens)).ok();
  };
  const Holding all = Holding::Everything();
  EXPECT_TRUE(fits("h100-x2", "llama-3-70b", Dtype::kFp8, all, 100'000));
  EXPECT_FALSE(fits("h100-sxm", "llama-3-70b", Dtype::kFp8, all, 0));
  EXPECT_TRUE(fits("h200-sxm", "llama-3-70b", Dtype::kFp8, all, 100'000));
  EXPECT_TRUE(fits("cs-3", "llama-3-8b", Dtype::kBf16, all, 100'000));
  EXPECT_FALSE(fits("cs-3", "llama-3-70b", Dtype::kBf16, all, 0));
  EXPECT_TRUE(fits("cs-3-x4", "llama-3-70b", Dtype::kBf16, all, 100'000));
  EXPECT_TRUE(fits("groq-lpu-v1-x576", "llama-3-70b", Dtype::kInt8, all, 100'000));
  EXPECT_TRUE(fits("groq3-lpx-rack", "llama-3-70b", Dtype::kFp8, Ffn(), 0));
  EXPECT_FALSE(fits("groq3-lpx-rack", "deepseek-v3", Dtype::kFp8, Ffn(), 0));
  EXPECT_TRUE(fits("tpu-v5e-x8", "llama-3-70b", Dtype::kInt8, all, 20'000));
  EXPECT_TRUE(fits("trainium2-x16", "llama-3-70b", Dtype::kBf16, all, 100'000));
  // A CS-3 holds 39 % of the 70B's FFN: three of them, by layers.
  EXPECT_FALSE(fits("cs-3", "llama-3-70b", Dtype::kBf16, Ffn({0, 40, 0, 1}), 0));
  EXPECT_TRUE(fits("cs-3", "llama-3-70b", Dtype::kBf16, Ffn({0, 27, 0, 1}), 0));
}

}  // namespace
}  // namespace tandem::cost
