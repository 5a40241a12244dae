// Goal: a real model of 30 layers as the first of 80 gives every logit that it gives alone, whole
// or over prefill, attention and FFN shards, and a fault on the way through the further layers is
// seen. Method: the plain backend, which exact_test holds against libllama, and the deepened one,
// on the same ids; compared by bits.

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/base/random.h"
#include "tests/exact/real_model.h"
#include "tests/exact/split_driver.h"
#include "workers/backend/deepened/deepened_backend.h"
#include "workers/backend/ggml/ggml_backend.h"

namespace tandem::exact {
namespace {

constexpr uint32_t kLayers = 80, kRealLayers = 30;
constexpr uint32_t kKvBlocks = 64, kBlockTokens = 16;
constexpr uint64_t kSeed = 20261124;

// Drops what the layer before it hands to the first layer past the real ones.
class LosesTheLastFfnOutput final : public DeepenedBackend {
 public:
  explicit LosesTheLastFfnOutput(std::unique_ptr<StageBackend> real)
      : DeepenedBackend(std::move(real), kLayers, FfnShard{0, kLayers, 0, 1}) {}
  TicketPtr AttentionLayer(uint32_t layer, absl::Span<const step::KvRow> rows, Buffer& residual,
                           const Buffer* ffn_out) override {
    return DeepenedBackend::AttentionLayer(layer, rows, residual,
                                           layer == kRealLayers ? nullptr : ffn_out);
  }
};

class DeepenedExact : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto file = ggml_cpu::GgufModel::Open(ModelPath());
    ASSERT_TRUE(file.ok()) << file.status();
    file_ = *std::move(file);
    ASSERT_EQ(file_->shape().layers, kRealLayers);
  }
  static void TearDownTestSuite() { file_.reset(); }
  void SetUp() override { ASSERT_NE(file_, nullptr); }

  // The real model's part of a shard of the 80 layers.
  static std::unique_ptr<GgmlBackend> Real(const std::set<Stage>& stages, const FfnShard& shard) {
    const uint32_t blocks = stages == std::set<Stage>{Stage::kFfn} ? 0 : kKvBlocks;
    auto real = GgmlBackend::Create({ModelPath(), stages, blocks, kBlockTokens, 1, {}}, *file_,
                                    RealPart(shard, kRealLayers));
    EXPECT_TRUE(real.ok()) << real.status();
    return *std::move(real);
  }
  static std::unique_ptr<DeepenedBackend> Deepened(std::unique_ptr<GgmlBackend> real,
                                                   const FfnShard& shard = {0, kLayers, 0, 1}) {
    auto backend = DeepenedBackend::Create(std::move(real), kLayers, shard);
    EXPECT_TRUE(backend.ok()) << backend.status();
    return *std::move(backend);
  }
  static std::vector<std::unique_ptr<DeepenedBackend>> Shards(const std::vector<FfnShard>& parts) {
    std::vector<std::unique_ptr<DeepenedBackend>> shards;
    for (const FfnShard& part : parts) shards.push_back(Deepened(Real({Stage::kFfn}, part), part));
    return shards;
  }

  // Four prompts of random ids, of which one is longer than a piece of the deepened backend's.
  static std::vector<Sequence> Prompts() {
    std::vector<Sequence> sequences;
    Random random(kSeed);
    for (const size_t tokens : {3, 17, 50, 9}) {
      Sequence sequence;
      for (size_t i = 0; i < tokens; ++i)
        sequence.prompt_ids.push_back(static_cast<TokenId>(random.Below(file_->vocabulary())));
      sequence.max_tokens = 12;
      sequence.sampling.temperature = 0;
      sequences.push_back(std::move(sequence));
    }
    return sequences;
  }
  // `head`: whose logits are taken; of the attention part.
  static std::vector<Sequence> Run(const Parts& parts, const GgmlBackend& head, uint32_t chunk,
                                   uint32_t max_batch, Fault fault = Fault::kNone) {
    SplitDriver driver(parts, kKvBlocks, kBlockTokens, kSeed);
    driver.set_logits([&head] { return head.last_logits(); });
    driver.set_fault(fault);
    std::vector<Sequence> sequences = Prompts();
    const absl::Status status = driver.Run(sequences, chunk, max_batch, /*join_every=*/1);
    EXPECT_TRUE(status.ok()) << status;
    return sequences;
  }
  static std::vector<Sequence> RunPlain(Fault fault = Fault::kNone) {
    const auto plain = Real(All(), {0, kRealLayers, 0, 1});
    return Run({plain.get(), plain.get(), plain.get()}, *plain, 32, 4, fault);
  }
  static bool Same(const std::vector<Sequence>& a, const std::vector<Sequence>& b) {
    for (size_t i = 0; i < a.size(); ++i) {
      if (a[i].ids != b[i].ids || a[i].ids.empty() || a[i].logits.size() != b[i].logits.size() ||
          std::memcmp(a[i].logits.data(), b[i].logits.data(), a[i].logits.size() * sizeof(float)) !=
              0)
        return false;
    }
    return a.size() == b.size();
  }
  static std::set<Stage> All() { return {Stage::kPrefill, Stage::kAttention, Stage::kFfn}; }

  static inline std::unique_ptr<ggml_cpu::GgufModel> file_;
};

TEST_F(DeepenedExact, WholeInOneChunkItEqualsTheModelAlone) {
  auto real = Real(All(), {0, kLayers, 0, 1});
  const GgmlBackend& head = *real;
  const auto deep = Deepened(std::move(real));
  EXPECT_EQ(deep->info().end_tokens, head.info().end_tokens);
  EXPECT_TRUE(Same(Run({deep.get(), deep.get(), deep.get()}, head, /*chunk=*/512, 4), RunPlain()));
}

TEST_F(DeepenedExact, OverPrefillAttentionAndLayerShardsItEqualsTheModelAlone) {
  const auto prefill = Deepened(Real({Stage::kPrefill}, {0, kLayers, 0, 1}));
  auto real = Real({Stage::kAttention}, {0, kLayers, 0, 1});
  const GgmlBackend& head = *real;
  const auto attention = Deepened(std::move(real));
  // The second holds real layers and others, the third none of its own.
  const auto shards = Shards({{0, 20, 0, 1}, {20, 50, 0, 1}, {50, kLayers, 0, 1}});
  EXPECT_EQ(shards[0]->info().ffn_bytes + shards[1]->info().ffn_bytes, 49'835'520u);
  EXPECT_EQ(shards[2]->info().ffn_bytes, 0u);
  const Parts parts{
      prefill.get(), attention.get(), nullptr, {shards[0].get(), shards[1].get(), shards[2].get()}};
  EXPECT_TRUE(Same(Run(parts, head, 7, 3), RunPlain()));
}

TEST_F(DeepenedExact, ColumnShardsEqualTheModelsOwnColumnShards) {
  const auto shards = Shards({{0, kLayers, 0, 2}, {0, kLayers, 1, 2}});
  auto real = Real(All(), {0, kLayers, 0, 1});
  const GgmlBackend& head = *real;
  const auto deep = Deepened(std::move(real));
  const auto plain = Real(All(), {0, kRealLayers, 0, 1});
  const auto one = Real({Stage::kFfn}, {0, kRealLayers, 0, 2}),
             other = Real({Stage::kFfn}, {0, kRealLayers, 1, 2});
  EXPECT_EQ(shards[0]->info().numerics, one->info().numerics);
  const auto wanted =
      Run({plain.get(), plain.get(), nullptr, {one.get(), other.get()}}, *plain, 32, 4);
  EXPECT_TRUE(
      Same(Run({deep.get(), deep.get(), nullptr, {shards[0].get(), shards[1].get()}}, head, 32, 4),
           wanted));
}

// The faults: the same comparison, and it must fail.

TEST_F(DeepenedExact, TheLastRealFfnOutputLostIsSeen) {
  auto real = Real(All(), {0, kLayers, 0, 1});
  const GgmlBackend& head = *real;
  LosesTheLastFfnOutput deep(std::move(real));
  EXPECT_FALSE(Same(Run({&deep, &deep, &deep}, head, 32, 4), RunPlain()));
}

TEST_F(DeepenedExact, TwoRowsSwappedAndAKvBlockDroppedAreSeen) {
  for (const Fault fault : {Fault::kSwapRows, Fault::kDropKvBlock}) {
    auto real = Real(All(), {0, kLayers, 0, 1});
    const GgmlBackend& head = *real;
    const auto deep = Deepened(std::move(real));
    EXPECT_FALSE(Same(Run({deep.get(), deep.get(), deep.get()}, head, 32, 4, fault), RunPlain()))
        << static_cast<int>(fault);
  }
}

}  // namespace
}  // namespace tandem::exact
