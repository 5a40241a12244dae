#pragma once

// What every StageBackend must do, whatever its numerics. A test program includes this and
// instantiates it:
//
//   INSTANTIATE_TEST_SUITE_P(Mine, BackendConformance, testing::Values(BackendCase{"mine",
//   MakeMine, MakeShardOfMine}));
//
// and ShardConformance likewise.
//
// Results are compared by bits.

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <ostream>
#include <set>
#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "workers/backend/stage_backend.h"

namespace tandem::exact {

struct BackendCase {
  std::string name;
  // A backend of the stages with at least `kv_blocks` KV blocks of `block_tokens`. Each call makes
  // one of its own, of the same model.
  std::function<std::unique_ptr<StageBackend>(std::set<Stage> stages, uint32_t kv_blocks,
                                              uint32_t block_tokens)>
      make;
  // A part of the same model's FFN, alone; for ShardConformance.
  std::function<absl::StatusOr<std::unique_ptr<StageBackend>>(const ShardRequest& shard)>
      make_shard = nullptr;
};
inline void PrintTo(const BackendCase& backend, std::ostream* out) { *out << backend.name; }

class BackendConformance : public testing::TestWithParam<BackendCase> {
 protected:
  static constexpr uint32_t kBlocks = 32;
  static constexpr uint32_t kBlockTokens = 4;

  // One sequence's text and place.
  struct Context {
    std::vector<TokenId> ids;
    step::BlockTable blocks;
  };

  static std::set<Stage> All() { return {Stage::kPrefill, Stage::kAttention, Stage::kFfn}; }
  std::unique_ptr<StageBackend> Make(std::set<Stage> stages) {
    auto backend = GetParam().make(std::move(stages), kBlocks, kBlockTokens);
    EXPECT_NE(backend, nullptr);
    return backend;
  }
  static BufferRef Rows(StageBackend& backend, uint32_t rows) {
    auto buffer = backend.AllocateRows(rows);
    EXPECT_TRUE(buffer.ok()) << buffer.status();
    return *std::move(buffer);
  }
  static std::vector<TokenId> SomeIds(const StageBackend& backend, uint32_t count, uint64_t seed) {
    Random random(seed);
    std::vector<TokenId> ids(count);
    for (TokenId& id : ids)
      id = static_cast<TokenId>(random.Below(backend.info().dimensions.vocabulary));
    return ids;
  }
  static size_t RowFloats(const StageBackend& backend) { return backend.info().dimensions.hidden; }
  static std::vector<float> Copy(const StageBackend& backend, const Buffer& buffer, uint32_t row,
                                 uint32_t rows) {
    const float* first = buffer.host() + row * RowFloats(backend);
    return {first, first + rows * RowFloats(backend)};
  }
  static bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
    return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0;
  }

  // All layers over rows of one or more sequences; residual and last FFN output as the head would
  // take them.
  struct Out {
    BufferRef residual, ffn_out;
  };
  static Out Forward(StageBackend& attention, StageBackend& ffn,
                     const std::vector<step::KvRow>& rows) {
    const uint32_t n = static_cast<uint32_t>(rows.size());
    Out out{Rows(attention, n), Rows(attention, n)};
    const BufferRef in = Rows(ffn, n), back = Rows(ffn, n);
    std::vector<TokenId> ids;
    for (const step::KvRow& row : rows) ids.push_back(row.token);
    EXPECT_TRUE(attention.Embed(ids, *out.residual)->Wait().ok());
    const size_t bytes = n * RowFloats(attention) * sizeof(float);
    for (uint32_t layer = 0; layer < attention.info().dimensions.layers; ++layer) {
      const Buffer* before = layer == 0 ? nullptr : out.ffn_out.get();
      EXPECT_TRUE(attention.AttentionLayer(layer, rows, *out.residual, before)->Wait().ok());
      std::memcpy(in->host(), out.residual->host(), bytes);
      EXPECT_TRUE(ffn.FfnLayer(layer, n, *in, *back)->Wait().ok());
      std::memcpy(out.ffn_out->host(), back->host(), bytes);
    }
    return out;
  }
  // What the head would take of a row: residual + ffn_out. A layer's FFN output alone may be zeros.
  static std::vector<float> HeadInput(const StageBackend& backend, const Out& out, uint32_t row) {
    std::vector<float> sum = Copy(backend, *out.residual, row, 1);
    const std::vector<float> ffn = Copy(backend, *out.ffn_out, row, 1);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += ffn[i];
    return sum;
  }
  static std::vector<step::KvRow> RowsOf(const Context& context, uint32_t first, uint32_t count) {
    std::vector<step::KvRow> rows;
    for (uint32_t i = first; i < first + count; ++i)
      rows.push_back({context.ids[i], i, &context.blocks});
    return rows;
  }
  // The last row's way to the head after the sequence went through in chunks of `chunk`.
  static std::vector<float> LastRow(StageBackend& backend, const Context& context, uint32_t chunk) {
    std::vector<float> last;
    for (uint32_t at = 0; at < context.ids.size(); at += chunk) {
      const uint32_t n = std::min(chunk, static_cast<uint32_t>(context.ids.size()) - at);
      const Out out = Forward(backend, backend, RowsOf(context, at, n));
      last = HeadInput(backend, out, n - 1);
    }
    return last;
  }
  static std::vector<uint8_t> AllKv(StageBackend& backend, const step::BlockTable& blocks,
                                    uint32_t count) {
    std::vector<uint8_t> all;
    for (uint32_t layer = 0; layer < backend.info().dimensions.layers; ++layer) {
      std::vector<uint8_t> rows(backend.info().kv_row_bytes * count);
      EXPECT_TRUE(backend.ReadKv(layer, blocks, 0, count, absl::MakeSpan(rows)).ok());
      all.insert(all.end(), rows.begin(), rows.end());
    }
    return all;
  }
};

TEST_P(BackendConformance, DescribesItself) {
  const auto backend = Make(All());
  const BackendInfo& info = backend->info();
  EXPECT_FALSE(info.name.empty());
  EXPECT_GT(info.dimensions.layers, 0u);
  EXPECT_GT(info.dimensions.hidden, 0u);
  EXPECT_GT(info.dimensions.vocabulary, 0u);
  EXPECT_GT(info.kv_row_bytes, 0u);
  EXPECT_FALSE(info.numerics.prefill.empty());
  EXPECT_FALSE(info.numerics.attention.empty());
  EXPECT_FALSE(info.numerics.ffn.empty());
  const auto ffn = Make({Stage::kFfn});
  EXPECT_EQ(ffn->info().numerics, (NumericsClass{"", "", info.numerics.ffn}));
}

TEST_P(BackendConformance, RowsDoNotDependOnTheBatchAroundThem) {
  const auto backend = Make(All());
  std::vector<Context> contexts;
  for (uint32_t i = 0; i < 4; ++i)
    contexts.push_back({SomeIds(*backend, 5 + i, i), {3 * i + 2, 3 * i, 3 * i + 1}});
  std::vector<std::vector<float>> alone;
  for (const Context& context : contexts) alone.push_back(LastRow(*backend, context, 1));
  // Now the last token of all four in one batch, in another order.
  std::vector<step::KvRow> rows;
  for (size_t i = contexts.size(); i-- > 0;) {
    rows.push_back(RowsOf(contexts[i], static_cast<uint32_t>(contexts[i].ids.size()) - 1, 1)[0]);
  }
  const Out together = Forward(*backend, *backend, rows);
  for (uint32_t i = 0; i < 4; ++i) {
    EXPECT_TRUE(SameBits(alone[i], HeadInput(*backend, together, 3 - i))) << "sequence " << i;
  }
}

TEST_P(BackendConformance, ChunksOfAnySizeGiveTheSameBits) {
  const auto backend = Make(All());
  const Context whole{SomeIds(*backend, 23, 7), {5, 1, 9, 0, 7, 3}};
  const std::vector<float> wanted = LastRow(*backend, whole, 23);
  for (const uint32_t chunk : {1u, 3u, 7u, 16u}) {
    const Context again{whole.ids, {20, 21, 15, 30, 11, 12}};
    EXPECT_TRUE(SameBits(wanted, LastRow(*backend, again, chunk))) << "chunks of " << chunk;
  }
}

TEST_P(BackendConformance, EveryRowCounts) {
  const auto backend = Make(All());
  Context context{SomeIds(*backend, 9, 3), {4, 8, 2}};
  const std::vector<float> wanted = LastRow(*backend, context, 4);
  context.ids[0] = (context.ids[0] + 1) % backend->info().dimensions.vocabulary;
  EXPECT_FALSE(SameBits(wanted, LastRow(*backend, context, 4)))
      << "the first token has no effect on the ninth";
}

TEST_P(BackendConformance, KvReadFromOneBackendContinuesOnAnother) {
  const auto from = Make({Stage::kPrefill});
  const auto to = Make({Stage::kAttention});
  const auto ffn = Make({Stage::kFfn});
  const Context source{SomeIds(*from, 11, 5), {6, 2, 9}};
  const std::vector<float> wanted = LastRow(*from, source, 11);
  const Context target{source.ids, {1, 30, 4}};
  for (uint32_t layer = 0; layer < from->info().dimensions.layers; ++layer) {
    for (uint32_t at = 0; at < 10; at += 3) {
      const uint32_t count = std::min(3u, 10 - at);
      std::vector<uint8_t> rows(from->info().kv_row_bytes * count);
      ASSERT_TRUE(from->ReadKv(layer, source.blocks, at, count, absl::MakeSpan(rows)).ok());
      ASSERT_TRUE(to->WriteKv(layer, target.blocks, at, count, rows).ok());
    }
  }
  EXPECT_EQ(AllKv(*from, source.blocks, 10), AllKv(*to, target.blocks, 10));
  const Out last = Forward(*to, *ffn, RowsOf(target, 10, 1));
  EXPECT_TRUE(SameBits(wanted, HeadInput(*to, last, 0)));
}

TEST_P(BackendConformance, CopiedBlocksHoldTheSameRowsAndPartWays) {
  const auto backend = Make(All());
  const Context source{SomeIds(*backend, 8, 11), {3, 17}};
  LastRow(*backend, source, 8);
  const std::vector<uint8_t> before = AllKv(*backend, source.blocks, 8);
  ASSERT_TRUE(backend->CopyBlocks({{17, 25}}).ok());
  EXPECT_EQ(AllKv(*backend, {3, 25}, 8), before);
  const Context other{SomeIds(*backend, 8, 12), {3, 25}};
  Forward(*backend, *backend, RowsOf(other, 4, 4));
  EXPECT_EQ(AllKv(*backend, source.blocks, 8), before) << "writing the copy changed the source";
  EXPECT_NE(AllKv(*backend, other.blocks, 8), before);
}

TEST_P(BackendConformance, ZeroRowsAreAnsweredAndTouchNothing) {
  const auto backend = Make(All());
  const BufferRef in = Rows(*backend, 1), out = Rows(*backend, 1);
  out->host()[0] = 42.0f;
  EXPECT_TRUE(backend->FfnLayer(0, 0, *in, *out)->Wait().ok());
  EXPECT_EQ(out->host()[0], 42.0f);
  EXPECT_TRUE(backend->AttentionLayer(0, {}, *in, nullptr)->Wait().ok());
}

TEST_P(BackendConformance, FfnLeavesItsInputAlone) {
  const auto backend = Make(All());
  const Context context{SomeIds(*backend, 3, 13), {0}};
  const Out rows = Forward(*backend, *backend, RowsOf(context, 0, 3));
  const std::vector<float> before = Copy(*backend, *rows.residual, 0, 3);
  const BufferRef out = Rows(*backend, 3);
  ASSERT_TRUE(backend->FfnLayer(0, 3, *rows.residual, *out)->Wait().ok());
  EXPECT_TRUE(SameBits(before, Copy(*backend, *rows.residual, 0, 3)));
}

// Attention and head add the FFN's output themselves: the same as handing them the sum.
TEST_P(BackendConformance, TheFfnOutputIsAddedToTheResidual) {
  const auto backend = Make(All());
  const Context context{SomeIds(*backend, 3, 14), {7}};
  const Out rows = Forward(*backend, *backend, RowsOf(context, 0, 3));
  const BufferRef sum = Rows(*backend, 3), apart = Rows(*backend, 3);
  const std::vector<float> residual = Copy(*backend, *rows.residual, 0, 3),
                           ffn = Copy(*backend, *rows.ffn_out, 0, 3);
  for (size_t i = 0; i < residual.size(); ++i) {
    apart->host()[i] = residual[i];
    sum->host()[i] = residual[i] + ffn[i];
  }
  const auto kv_rows = RowsOf(context, 0, 3);
  ASSERT_TRUE(backend->AttentionLayer(0, kv_rows, *sum, nullptr)->Wait().ok());
  ASSERT_TRUE(backend->AttentionLayer(0, kv_rows, *apart, rows.ffn_out.get())->Wait().ok());
  EXPECT_TRUE(SameBits(Copy(*backend, *sum, 0, 3), Copy(*backend, *apart, 0, 3)));
  EXPECT_FALSE(SameBits(residual, Copy(*backend, *apart, 0, 3)));
}

TEST_P(BackendConformance, GreedyTokensDoNotDependOnTheBatch) {
  const auto backend = Make(All());
  Sampling greedy;
  greedy.temperature = 0;
  const std::vector<TokenId> none;
  const auto token_of = [&](const Out& out, uint32_t rows) {
    std::vector<step::SampledToken> tokens;
    const std::vector<step::SampleRow> samples(rows, {&greedy, 1, 0, &none, &none});
    EXPECT_TRUE(
        backend->HeadAndSample(samples, *out.residual, out.ffn_out.get(), tokens)->Wait().ok());
    EXPECT_EQ(tokens.size(), rows);
    return tokens;
  };
  std::vector<Context> contexts;
  std::vector<step::KvRow> rows;
  std::vector<TokenId> alone;
  for (uint32_t i = 0; i < 3; ++i) contexts.push_back({SomeIds(*backend, 1, 20 + i), {i}});
  for (const Context& context : contexts) {
    const auto row = RowsOf(context, 0, 1);
    alone.push_back(token_of(Forward(*backend, *backend, row), 1)[0].id);
    rows.push_back(row[0]);
  }
  const auto together = token_of(Forward(*backend, *backend, rows), 3);
  for (uint32_t i = 0; i < 3; ++i) {
    EXPECT_EQ(together[i].id, alone[i]);
    EXPECT_LT(alone[i], backend->info().dimensions.vocabulary);
  }
}

TEST_P(BackendConformance, WhatIsOutOfRangeIsRefused) {
  const auto backend = Make(All());
  const BufferRef rows = Rows(*backend, 1), out = Rows(*backend, 1);
  const ModelDimensions& dimensions = backend->info().dimensions;
  const step::BlockTable blocks = {0}, beyond = {kBlocks + 1000};
  const auto code = [](const absl::Status& status) { return status.code(); };
  const auto bad = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code(backend->Embed({dimensions.vocabulary}, *rows)->Wait()), bad);
  EXPECT_EQ(code(backend->FfnLayer(dimensions.layers, 1, *rows, *out)->Wait()), bad);
  EXPECT_EQ(code(backend->AttentionLayer(0, {step::KvRow{0, kBlockTokens, &blocks}}, *rows, nullptr)
                     ->Wait()),
            bad);
  EXPECT_EQ(code(backend->AttentionLayer(0, {step::KvRow{0, 0, &beyond}}, *rows, nullptr)->Wait()),
            bad);
  std::vector<uint8_t> kv(backend->info().kv_row_bytes);
  EXPECT_EQ(code(backend->ReadKv(0, blocks, kBlockTokens, 1, absl::MakeSpan(kv))), bad);
  EXPECT_EQ(code(backend->WriteKv(0, blocks, 0, 2, kv)), bad) << "bytes of one row for two";
  EXPECT_EQ(code(backend->CopyBlocks({{0, kBlocks + 1000}})), bad);
}

TEST_P(BackendConformance, AStageThatWasNotLoadedIsRefused) {
  const auto ffn = Make({Stage::kFfn});
  const BufferRef rows = Rows(*ffn, 1);
  const step::BlockTable blocks = {0};
  const auto bad = absl::StatusCode::kFailedPrecondition;
  EXPECT_EQ(ffn->Embed({0}, *rows)->Wait().code(), bad);
  EXPECT_EQ(ffn->AttentionLayer(0, {step::KvRow{0, 0, &blocks}}, *rows, nullptr)->Wait().code(),
            bad);
}

// ---- Shards of the FFN.

class ShardConformance : public BackendConformance {
 protected:
  void SetUp() override {
    ASSERT_TRUE(GetParam().make_shard != nullptr);
    whole_ = Make({Stage::kFfn});
    layers_ = whole_->info().dimensions.layers;
    in_ = Rows(*whole_, kRows);
    Random random(31);
    for (size_t i = 0; i < kRows * RowFloats(*whole_); ++i)
      in_->host()[i] = static_cast<float>(static_cast<int>(random.Below(2001)) - 1000) / 500;
  }
  std::unique_ptr<StageBackend> MakeShard(const std::string& layers, const std::string& column) {
    auto shard = GetParam().make_shard(*ParseShardRequest(layers, column));
    EXPECT_TRUE(shard.ok()) << shard.status();
    return shard.ok() ? *std::move(shard) : nullptr;
  }
  // The layer's output of rows [first, first + count).
  std::vector<float> Ffn(StageBackend& backend, uint32_t layer, uint32_t first, uint32_t count) {
    const BufferRef in = Rows(backend, count), out = Rows(backend, count);
    const size_t floats = RowFloats(backend);
    std::memcpy(in->host(), in_->host() + first * floats, count * floats * sizeof(float));
    EXPECT_TRUE(backend.FfnLayer(layer, count, *in, *out)->Wait().ok());
    return Copy(backend, *out, 0, count);
  }

  static constexpr uint32_t kRows = 5;
  std::unique_ptr<StageBackend> whole_;
  uint32_t layers_ = 0;
  BufferRef in_;  // [kRows, hidden]
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(ShardConformance);

TEST_P(ShardConformance, ALayerShardHasTheWholesBitsForItsLayersAndRefusesTheOthers) {
  uint64_t bytes = 0;
  for (const char* part : {"0/2", "1/2"}) {
    const auto shard = MakeShard(part, "0/1");
    const FfnShard& held = shard->info().shard;
    EXPECT_EQ(shard->info().numerics, whole_->info().numerics) << "one class";
    bytes += shard->info().ffn_bytes;
    for (uint32_t layer = 0; layer < layers_; ++layer) {
      if (held.HoldsLayer(layer)) {
        EXPECT_TRUE(SameBits(Ffn(*shard, layer, 0, kRows), Ffn(*whole_, layer, 0, kRows))) << layer;
        continue;
      }
      const BufferRef out = Rows(*shard, 1);
      const absl::Status refused = shard->FfnLayer(layer, 1, *in_, *out)->Wait();
      EXPECT_EQ(refused.code(), absl::StatusCode::kNotFound);
      EXPECT_NE(refused.message().find(ToString(held, layers_)), std::string::npos) << refused;
    }
  }
  EXPECT_EQ(bytes, whole_->info().ffn_bytes);
}

TEST_P(ShardConformance, PiecesOfColumnsAddUpToTheLayerWhateverTheBatch) {
  std::vector<std::unique_ptr<StageBackend>> pieces;
  for (const char* column : {"0/2", "1/2"}) pieces.push_back(MakeShard("all", column));
  for (uint32_t layer = 0; layer < layers_; ++layer) {
    const std::vector<float> wanted = Ffn(*whole_, layer, 0, kRows);
    std::vector<float> sum(wanted.size());
    float largest = 0;
    for (const float value : wanted) largest = std::max(largest, std::abs(value));
    for (const auto& piece : pieces) {
      const std::vector<float> partial = Ffn(*piece, layer, 0, kRows);
      EXPECT_TRUE(SameBits(partial, Ffn(*piece, layer, 0, kRows)));
      std::vector<float> alone = Ffn(*piece, layer, 0, 2);
      const std::vector<float> rest = Ffn(*piece, layer, 2, kRows - 2);
      alone.insert(alone.end(), rest.begin(), rest.end());
      EXPECT_TRUE(SameBits(partial, alone)) << "a row depends on the batch around it";
      EXPECT_EQ(SameBits(partial, wanted), largest == 0) << "only of zeros a piece is the whole";
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += partial[i];
    }
    // Another order of summation: near, but of a class of its own.
    for (size_t i = 0; i < sum.size(); ++i) EXPECT_NEAR(sum[i], wanted[i], largest * 1e-3f) << i;
  }
  for (const auto& piece : pieces) {
    const std::string& ffn = piece->info().numerics.ffn;
    EXPECT_EQ(ffn.substr(WithoutGeometry(ffn).size()), "column/2");
    EXPECT_EQ(WithoutGeometry(ffn), WithoutGeometry(whole_->info().numerics.ffn));
    EXPECT_LE(piece->info().ffn_bytes, whole_->info().ffn_bytes);
  }
}

TEST_P(ShardConformance, WhatTheModelHasNotIsRefused) {
  const auto code = [&](const std::string& layers, const std::string& column) {
    return GetParam().make_shard(*ParseShardRequest(layers, column)).status().code();
  };
  EXPECT_EQ(code(absl::StrCat("0:", layers_ + 1), "0/1"), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(code(absl::StrCat("0/", layers_ + 1), "0/1"), absl::StatusCode::kInvalidArgument);
}

}  // namespace tandem::exact
