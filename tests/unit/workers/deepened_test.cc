// A model made deeper by layers that pass rows through: around the hash chain, of which one row
// lost, added twice or handed to the wrong layer changes the token.

#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <vector>

#include "scheduler/base/status.h"
#include "tests/exact/ffn_conformance.h"
#include "tests/fakes/fake_backend.h"
#include "workers/backend/deepened/deepened_backend.h"

namespace tandem {
namespace {

constexpr uint32_t kLayers = 7;  // of which the fake has three

test::FakeOptions Options(std::set<Stage> stages, uint32_t kv_blocks = 64,
                          uint32_t block_tokens = 4) {
  test::FakeOptions options;
  options.stages = std::move(stages);
  options.kv_blocks = kv_blocks;
  options.block_tokens = block_tokens;
  return options;
}

std::set<Stage> All() { return {Stage::kPrefill, Stage::kAttention, Stage::kFfn}; }

// `fake`, which may be null, is set to the real part, to put a hook into.
std::unique_ptr<DeepenedBackend> Make(const test::FakeOptions& options,
                                      test::FakeBackend** fake = nullptr) {
  auto real = std::make_unique<test::FakeBackend>(options);
  if (fake != nullptr) *fake = real.get();
  auto backend = DeepenedBackend::Create(std::move(real), kLayers, FfnShard{0, kLayers, 0, 1});
  EXPECT_TRUE(backend.ok()) << backend.status();
  return *std::move(backend);
}

// The next greedy tokens after one token each at position 0, all in one batch.
std::vector<TokenId> NextTokens(StageBackend& backend, const std::vector<TokenId>& ids) {
  const auto n = static_cast<uint32_t>(ids.size());
  const BufferRef residual = *backend.AllocateRows(n), ffn_out = *backend.AllocateRows(n);
  std::vector<step::BlockTable> blocks(n);
  std::vector<step::KvRow> rows;
  for (uint32_t i = 0; i < n; i++) blocks[i] = {i};
  for (uint32_t i = 0; i < n; i++) rows.push_back({ids[i], 0, &blocks[i]});
  EXPECT_TRUE(backend.Embed(ids, *residual)->Wait().ok());
  for (uint32_t layer = 0; layer < backend.info().dimensions.layers; layer++) {
    const Buffer* before = layer == 0 ? nullptr : ffn_out.get();
    EXPECT_TRUE(backend.AttentionLayer(layer, rows, *residual, before)->Wait().ok());
    EXPECT_TRUE(backend.FfnLayer(layer, n, *residual, *ffn_out)->Wait().ok());
  }
  Sampling greedy;
  greedy.temperature = 0;
  const std::vector<TokenId> none;
  const std::vector<step::SampleRow> samples(n, {&greedy, 0, 0, &none, &none});
  std::vector<step::SampledToken> tokens(3);  // of a step before
  EXPECT_TRUE(backend.HeadAndSample(samples, *residual, ffn_out.get(), tokens)->Wait().ok());
  std::vector<TokenId> next;
  for (const step::SampledToken& token : tokens) next.push_back(token.id);
  return next;
}

TEST(RealPart, IsTheShardsLayersBelowTheRealOnes) {
  EXPECT_EQ(RealPart({0, 80, 0, 1}, 30), (FfnShard{0, 30, 0, 1}));
  EXPECT_EQ(RealPart({20, 40, 1, 2}, 30), (FfnShard{20, 30, 1, 2}));
  EXPECT_EQ(RealPart({40, 80, 0, 1}, 30), (FfnShard{30, 30, 0, 1})) << "none";
}

TEST(DeepenedBackend, FewerLayersThanTheRealOnesAreRefusedWithBothNumbers) {
  auto real = std::make_unique<test::FakeBackend>(test::FakeOptions());
  const absl::Status refused =
      DeepenedBackend::Create(std::move(real), 2, FfnShard{0, 2, 0, 1}).status();
  EXPECT_EQ(refused, absl::InvalidArgumentError(
                         "2 emulated layers are fewer than the 3 real ones of hash-chain"));
}

TEST(DeepenedBackend, TellsItsOwnDepthAndTheRealModelsClass) {
  const auto backend = Make(Options(All()));
  test::FakeBackend real(Options(All()));
  EXPECT_EQ(backend->info().dimensions.layers, kLayers);
  EXPECT_EQ(backend->info().dimensions.hidden, real.info().dimensions.hidden);
  EXPECT_EQ(backend->info().numerics, real.info().numerics);
  EXPECT_EQ(backend->info().shard, (FfnShard{0, kLayers, 0, 1}));
}

TEST(DeepenedBackend, TokensAreTheRealModelsInBatchesOfAnySize) {
  std::vector<TokenId> ids;
  for (uint32_t i = 0; i < 2 * DeepenedBackend::kMaxRows + 5; i++) ids.push_back(7 * i % 1000);
  const auto options = Options(All(), 128);
  test::FakeBackend real(options);
  test::FakeBackend* inner = nullptr;
  const auto backend = Make(options, &inner);
  uint32_t most = 0;
  inner->SetHook([&](const test::FakeCall& call) {
    if (call.kind != test::FakeCallKind::kCopyBlocks) most = std::max(most, call.rows);
    return absl::OkStatus();
  });
  const std::vector<TokenId> tokens = NextTokens(*backend, ids);
  EXPECT_EQ(tokens, NextTokens(real, ids));
  EXPECT_EQ(tokens.size(), ids.size());
  EXPECT_EQ(most, DeepenedBackend::kMaxRows);
}

TEST(DeepenedBackend, AFailureInOnePieceEndsTheCall) {
  test::FakeBackend* inner = nullptr;
  const auto backend = Make(Options(All()), &inner);
  int calls = 0;
  inner->SetHook([&](const test::FakeCall&) {
    return ++calls == 2 ? absl::InternalError("second piece") : absl::OkStatus();
  });
  const BufferRef in = *backend->AllocateRows(96), out = *backend->AllocateRows(96);
  EXPECT_EQ(backend->FfnLayer(0, 96, *in, *out)->Wait(), absl::InternalError("second piece"));
  EXPECT_EQ(calls, 2);
}

TEST(DeepenedBackend, TheFirstPassingLayerTakesTheLastRealFfnOutput) {
  const auto backend = Make(Options(All()));
  const BufferRef residual = *backend->AllocateRows(1), ffn_out = *backend->AllocateRows(1);
  const step::BlockTable blocks = {0};
  for (uint32_t i = 0; i < 4; i++) {
    residual->host()[i] = static_cast<float>(i);
    ffn_out->host()[i] = 10;
  }
  ASSERT_TRUE(backend->AttentionLayer(3, {{1, 0, &blocks}}, *residual, ffn_out.get())->Wait().ok());
  for (uint32_t i = 0; i < 4; i++) EXPECT_EQ(residual->host()[i], static_cast<float>(10 + i));
  ASSERT_TRUE(backend->AttentionLayer(4, {{1, 0, &blocks}}, *residual, nullptr)->Wait().ok());
  ASSERT_TRUE(backend->FfnLayer(4, 1, *residual, *ffn_out)->Wait().ok());
  for (uint32_t i = 0; i < 4; i++) {
    EXPECT_EQ(residual->host()[i], static_cast<float>(10 + i));
    EXPECT_EQ(ffn_out->host()[i], 0.0f);
  }
}

TEST(DeepenedBackend, KvOfAPassingLayerIsZerosAndOtherBytesAreDamage) {
  const auto backend = Make(Options({Stage::kAttention}));
  const step::BlockTable blocks = {4, 2};
  std::vector<uint8_t> rows(5 * backend->info().kv_row_bytes, 0);
  EXPECT_EQ(backend->WriteKv(6, blocks, 0, 5, rows), absl::OkStatus());
  rows[17] = 1;
  const absl::Status damaged = backend->WriteKv(6, blocks, 0, 5, rows);
  EXPECT_EQ(damaged.code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(damaged.message().find("layer 6"), std::string::npos) << damaged;
  EXPECT_EQ(backend->ReadKv(6, blocks, 0, 5, absl::MakeSpan(rows)), absl::OkStatus());
  EXPECT_EQ(std::count(rows.begin(), rows.end(), 0), static_cast<ptrdiff_t>(rows.size()));
}

TEST(DeepenedBackend, WhatIsOutOfRangeIsRefusedAtPassingLayersToo) {
  const auto backend = Make(Options(All()));
  const BufferRef in = *backend->AllocateRows(1), out = *backend->AllocateRows(1);
  const step::BlockTable blocks = {0};
  std::vector<uint8_t> row(backend->info().kv_row_bytes, 0);
  const auto bad = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(backend->AttentionLayer(kLayers, {{1, 0, &blocks}}, *in, nullptr)->Wait().code(), bad);
  EXPECT_EQ(backend->FfnLayer(kLayers, 1, *in, *out)->Wait().code(), bad);
  EXPECT_EQ(backend->ReadKv(kLayers, blocks, 0, 1, absl::MakeSpan(row)).code(), bad);
  EXPECT_EQ(backend->ReadKv(5, blocks, 4, 1, absl::MakeSpan(row)).code(), bad) << "no such block";
  EXPECT_EQ(backend->WriteKv(5, blocks, 4, 1, row).code(), bad);
  EXPECT_EQ(backend->WriteKv(5, blocks, 0, 2, row).code(), bad) << "bytes of one row for two";
  const auto ffn = Make(Options({Stage::kFfn}));
  EXPECT_EQ(ffn->AttentionLayer(5, {{1, 0, &blocks}}, *in, nullptr)->Wait().code(),
            absl::StatusCode::kFailedPrecondition);
  const auto attention = Make(Options({Stage::kAttention}));
  EXPECT_EQ(attention->FfnLayer(5, 1, *in, *out)->Wait().code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace tandem

namespace tandem::exact {

const BackendCase kDeepened{
    "hash_chain",
    [](std::set<Stage> stages, uint32_t kv_blocks,
       uint32_t block_tokens) -> std::unique_ptr<StageBackend> {
      return Make(Options(std::move(stages), kv_blocks, block_tokens));
    },
    [](const ShardRequest& request) -> absl::StatusOr<std::unique_ptr<StageBackend>> {
      test::FakeOptions options = Options({Stage::kFfn});
      ASSIGN_OR_RETURN(const FfnShard shard, ResolveRequest(request, kLayers));
      options.shard = RealPart(shard, options.dimensions.layers);
      return DeepenedBackend::Create(std::make_unique<test::FakeBackend>(options), kLayers, shard);
    }};

INSTANTIATE_TEST_SUITE_P(Deepened, BackendConformance, testing::Values(kDeepened));
INSTANTIATE_TEST_SUITE_P(Deepened, ShardConformance, testing::Values(kDeepened));

}  // namespace tandem::exact
