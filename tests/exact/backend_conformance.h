#pragma once

// What every StageBackend must do, whatever its numerics. A test program includes this and
// instantiates it:
//
//   INSTANTIATE_TEST_SUITE_P(Mine, BackendConformance, testing::Values(BackendCase{"mine",
//   MakeMine, MakeShardOfMine}), NameOf);
//
// and those of ffn_conformance.h likewise; a device that runs the FFN alone passes these, and
// leaves BackendConformance out. With a `reference` of another make, whatever says that it is of
// the reference's numerics class must have its bits, and whatever is of another be near them.
//
// Results are compared by bits; a difference names the first element and both values. The program
// prints a table of the cases when it links tests/exact/conformance_main.cc.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
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
  // Another backend of the same model, all stages, to be compared with where classes are equal.
  std::function<std::unique_ptr<StageBackend>(uint32_t kv_blocks, uint32_t block_tokens)>
      reference = nullptr;
};
// The last argument of INSTANTIATE_TEST_SUITE_P: names cases by their backend.
inline std::string NameOf(const testing::TestParamInfo<BackendCase>& info) {
  return info.param.name;
}
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
    std::vector<float> copy(rows * RowFloats(backend));
    buffer.Read(row * RowFloats(backend), absl::MakeSpan(copy));
    return copy;
  }
  // As a connector moves rows from one backend to another.
  static void Move(const StageBackend& backend, const Buffer& from, Buffer& to, uint32_t rows) {
    to.Write(0, Copy(backend, from, 0, rows));
  }
  static testing::AssertionResult SameBits(const std::vector<float>& a,
                                           const std::vector<float>& b) {
    if (a.size() != b.size())
      return testing::AssertionFailure() << a.size() << " floats, not " << b.size();
    for (size_t i = 0; i < a.size(); ++i) {
      if (std::bit_cast<uint32_t>(a[i]) == std::bit_cast<uint32_t>(b[i])) continue;
      return testing::AssertionFailure() << absl::StrFormat(
                 "first differing element %d of %d: %.9g, not %.9g", i, a.size(), b[i], a[i]);
    }
    return testing::AssertionSuccess() << "all of " << a.size() << " elements are equal";
  }

  // How far `b` is from `a`, of a's length: a sanity check of numbers of two classes.
  static double Distance(const std::vector<float>& a, const std::vector<float>& b) {
    double squares = 0, length = 0;
    for (size_t i = 0; i < a.size(); ++i) {
      squares += (double{a[i]} - b[i]) * (double{a[i]} - b[i]);
      length += double{a[i]} * a[i];
    }
    return std::sqrt(squares / length);
  }
  static constexpr double kNear = 0.02;

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
    for (uint32_t layer = 0; layer < attention.info().dimensions.layers; ++layer) {
      const Buffer* before = layer == 0 ? nullptr : out.ffn_out.get();
      EXPECT_TRUE(attention.AttentionLayer(layer, rows, *out.residual, before)->Wait().ok());
      Move(attention, *out.residual, *in, n);
      EXPECT_TRUE(ffn.FfnLayer(layer, n, *in, *back)->Wait().ok());
      Move(ffn, *back, *out.ffn_out, n);
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

TEST_P(BackendConformance, BuffersGiveBackWhatWasWritten) {
  const auto backend = Make(All());
  const BufferRef buffer = Rows(*backend, 3);
  ASSERT_GE(buffer->bytes(), 3 * RowFloats(*backend) * sizeof(float));
  std::vector<float> values(3 * RowFloats(*backend));
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) - 1.5f;
  buffer->Write(0, values);
  EXPECT_TRUE(SameBits(values, Copy(*backend, *buffer, 0, 3)));
  const std::vector<float> row(RowFloats(*backend), 7.0f);
  buffer->Write(RowFloats(*backend), row);
  std::copy(row.begin(), row.end(), values.begin() + static_cast<ptrdiff_t>(RowFloats(*backend)));
  EXPECT_TRUE(SameBits(values, Copy(*backend, *buffer, 0, 3)));
}

// A class is a promise: two backends that give the same one have the same bits.
TEST_P(BackendConformance, EqualClassesHaveEqualBits) {
  const auto backend = Make(All()), twin = Make(All());
  EXPECT_EQ(backend->info().numerics, twin->info().numerics);
  const Context context{SomeIds(*backend, 13, 6), {4, 9, 1, 30}};
  const std::vector<float> own = LastRow(*backend, context, 5);
  EXPECT_TRUE(SameBits(own, LastRow(*twin, context, 5))) << "against another of its own";
  if (GetParam().reference == nullptr) return;
  const auto reference = GetParam().reference(kBlocks, kBlockTokens);
  ASSERT_NE(reference, nullptr);
  const std::vector<float> wanted = LastRow(*reference, context, 5);
  EXPECT_LT(Distance(wanted, own), kNear) << "of another class, but of the same model";
  if (reference->info().numerics != backend->info().numerics) return;
  EXPECT_TRUE(SameBits(wanted, own))
      << "it says that its class is " << backend->info().numerics.attention;
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

// Cancelled in the middle of a step, and its blocks given to another at once.
TEST_P(BackendConformance, ACancelledSequenceLeavesNothingInItsBlocks) {
  const auto backend = Make(All());
  const Context fresh{SomeIds(*backend, 7, 51), {20, 21}};
  const std::vector<float> wanted = LastRow(*backend, fresh, 7);
  const Context cancelled{SomeIds(*backend, 8, 52), {6, 13}};
  LastRow(*backend, cancelled, 8);
  const Context next{SomeIds(*backend, 4, 53), {7}};
  const auto rows = RowsOf(next, 0, 4);  // of a third, of which only the first layer is computed
  const BufferRef residual = Rows(*backend, 4);
  ASSERT_TRUE(backend->Embed(next.ids, *residual)->Wait().ok());
  ASSERT_TRUE(backend->AttentionLayer(0, rows, *residual, nullptr)->Wait().ok());
  const Context reused{fresh.ids, {13, 7}};
  EXPECT_TRUE(SameBits(wanted, LastRow(*backend, reused, 3)));
}

TEST_P(BackendConformance, ZeroRowsAreAnsweredAndTouchNothing) {
  const auto backend = Make(All());
  const BufferRef in = Rows(*backend, 1), out = Rows(*backend, 1);
  out->Write(0, {42.0f});
  EXPECT_TRUE(backend->FfnLayer(0, 0, *in, *out)->Wait().ok());
  EXPECT_EQ(Copy(*backend, *out, 0, 1)[0], 42.0f);
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
  std::vector<float> both = residual;
  for (size_t i = 0; i < both.size(); ++i) both[i] += ffn[i];
  apart->Write(0, residual);
  sum->Write(0, both);
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

// Whatever a device keeps of the logits: the same token as from all of them. Logprobs need all.
TEST_P(BackendConformance, AskingForLogprobsChangesNoToken) {
  const auto backend = Make(All());
  std::vector<Sampling> ways(5);
  ways[0].temperature = 0;
  ways[1].top_k = 5;
  ways[2].top_k = 40;
  ways[2].top_p = 0.8f;
  ways[2].min_p = 0.02f;
  ways[3].temperature = 0.7f;
  ways[3].top_p = 0.9f;
  ways[4].top_k = 20;
  ways[4].repetition_penalty = 1.3f;
  const Context context{SomeIds(*backend, 6, 41), {2, 5}};
  const Out out = Forward(*backend, *backend, RowsOf(context, 0, 6));
  const BufferRef residual = Rows(*backend, 1), ffn_out = Rows(*backend, 1);
  for (size_t way = 0; way < ways.size(); ++way) {
    for (uint32_t position = 0; position < 8; ++position) {
      const auto draw = [&](const Sampling& sampling) {
        residual->Write(0, Copy(*backend, *out.residual, 5, 1));
        ffn_out->Write(0, Copy(*backend, *out.ffn_out, 5, 1));
        std::vector<step::SampledToken> tokens;
        const std::vector<TokenId> emitted(position, context.ids[0]);
        const step::SampleRow row{&sampling, 99, position, &context.ids, &emitted};
        EXPECT_TRUE(backend->HeadAndSample({row}, *residual, ffn_out.get(), tokens)->Wait().ok());
        EXPECT_EQ(tokens.size(), 1u);
        return tokens.empty() ? step::SampledToken() : tokens[0];
      };
      Sampling told = ways[way];
      told.top_logprobs = 3;
      const step::SampledToken with = draw(told);
      EXPECT_EQ(draw(ways[way]).id, with.id) << "way " << way << ", position " << position;
      EXPECT_LE(with.logprob, 0.0f);
    }
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

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(BackendConformance);

}  // namespace tandem::exact
