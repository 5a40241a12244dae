#pragma once

// What every StageBackend that runs the FFN must do: FfnConformance, of a whole layer, and
// ShardConformance, of pieces. Instantiated as BackendConformance is (backend_conformance.h).

#include "tests/exact/backend_conformance.h"

namespace tandem::exact {

// ---- The FFN alone.

class FfnConformance : public BackendConformance {
 protected:
  // Of so many rows that a call may have; the largest that every backend takes is kLargest.
  static constexpr uint32_t kLargest = 512;

  void SetUp() override {
    backend_ = Make({Stage::kFfn});
    ASSERT_NE(backend_, nullptr);
    Random random(17);
    in_.resize(kLargest * RowFloats(*backend_));
    for (float& value : in_)
      value = static_cast<float>(static_cast<int>(random.Below(2001)) - 1000) / 500;
  }
  // The layer's output of rows [first, first + count), computed in one call.
  std::vector<float> Ffn(StageBackend& backend, uint32_t layer, uint32_t first, uint32_t count) {
    const BufferRef in = Rows(backend, count), out = Rows(backend, count);
    const size_t floats = RowFloats(backend);
    in->Write(0, absl::MakeConstSpan(in_).subspan(first * floats, count * floats));
    const absl::Status status = backend.FfnLayer(layer, count, *in, *out)->Wait();
    EXPECT_TRUE(status.ok()) << status;
    return Copy(backend, *out, 0, count);
  }

  std::unique_ptr<StageBackend> backend_;
  std::vector<float> in_;  // [kLargest, hidden]
};
GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(FfnConformance);

TEST_P(FfnConformance, SaysWhatItHoldsAndItsClass) {
  const BackendInfo& info = backend_->info();
  EXPECT_FALSE(info.name.empty());
  EXPECT_GT(info.dimensions.layers, 0u);
  EXPECT_GT(info.dimensions.hidden, 0u);
  EXPECT_TRUE(info.shard.IsWhole(info.dimensions.layers));
  EXPECT_TRUE(info.numerics.prefill.empty()) << "a stage that it does not run";
  EXPECT_TRUE(info.numerics.attention.empty()) << "a stage that it does not run";
  const std::string& ffn = info.numerics.ffn;
  EXPECT_EQ(ffn.substr(WithoutGeometry(ffn).size()), GeometryOf(1));
  EXPECT_EQ(Make({Stage::kFfn})->info().numerics, info.numerics);
}

TEST_P(FfnConformance, EqualClassesHaveEqualBits) {
  const auto twin = Make({Stage::kFfn});
  const std::vector<float> own = Ffn(*backend_, 0, 0, 5);
  EXPECT_TRUE(SameBits(own, Ffn(*twin, 0, 0, 5))) << "against another of its own";
  if (GetParam().reference == nullptr) return;
  const auto reference = GetParam().reference(kBlocks, kBlockTokens);
  ASSERT_NE(reference, nullptr);
  const std::vector<float> wanted = Ffn(*reference, 0, 0, 5);
  EXPECT_LT(Distance(wanted, own), kNear) << "of another class, but of the same model";
  if (reference->info().numerics.ffn != backend_->info().numerics.ffn) return;
  EXPECT_TRUE(SameBits(wanted, own))
      << "it says that its class is " << backend_->info().numerics.ffn;
}

TEST_P(FfnConformance, ARowDoesNotDependOnTheBatchWhateverItsSize) {
  const uint32_t layer = backend_->info().dimensions.layers - 1;
  const std::vector<float> whole = Ffn(*backend_, layer, 0, kLargest);
  const size_t floats = RowFloats(*backend_);
  uint32_t at = 0;
  for (const uint32_t rows : {1u, 2u, 3u, 7u, 8u, 9u, 16u, 31u, 33u, 64u}) {
    const auto first = whole.begin() + static_cast<ptrdiff_t>(at * floats);
    const std::vector<float> wanted(first, first + static_cast<ptrdiff_t>(rows * floats));
    EXPECT_TRUE(SameBits(wanted, Ffn(*backend_, layer, at, rows)))
        << "rows " << at << " to " << at + rows << " in a call of " << rows << " and in one of "
        << kLargest;
    at += rows;
  }
}

TEST_P(FfnConformance, AnotherRowIsAnotherResult) {
  const std::vector<float> two = Ffn(*backend_, 0, 0, 2);
  const auto middle = two.begin() + static_cast<ptrdiff_t>(RowFloats(*backend_));
  EXPECT_FALSE(SameBits({two.begin(), middle}, {middle, two.end()}));
}

TEST_P(FfnConformance, NoRowsAreAnsweredAndTouchNothing) {
  const BufferRef in = Rows(*backend_, 1), out = Rows(*backend_, 1);
  out->Write(0, {42.0f});
  EXPECT_TRUE(backend_->FfnLayer(0, 0, *in, *out)->Wait().ok());
  EXPECT_EQ(Copy(*backend_, *out, 0, 1)[0], 42.0f);
}

TEST_P(FfnConformance, TheInputIsLeftAlone) {
  const BufferRef in = Rows(*backend_, 3), out = Rows(*backend_, 3);
  const std::vector<float> before(in_.begin(),
                                  in_.begin() + static_cast<ptrdiff_t>(3 * RowFloats(*backend_)));
  in->Write(0, before);
  ASSERT_TRUE(backend_->FfnLayer(0, 3, *in, *out)->Wait().ok());
  EXPECT_TRUE(SameBits(before, Copy(*backend_, *in, 0, 3)));
}

TEST_P(FfnConformance, WhatItHasNotIsRefused) {
  const BufferRef in = Rows(*backend_, 1), out = Rows(*backend_, 1);
  const step::BlockTable blocks = {0};
  EXPECT_EQ(backend_->FfnLayer(backend_->info().dimensions.layers, 1, *in, *out)->Wait().code(),
            absl::StatusCode::kInvalidArgument);
  const auto not_loaded = absl::StatusCode::kFailedPrecondition;
  EXPECT_EQ(backend_->Embed({0}, *in)->Wait().code(), not_loaded);
  EXPECT_EQ(backend_->AttentionLayer(0, {step::KvRow{0, 0, &blocks}}, *in, nullptr)->Wait().code(),
            not_loaded);
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
    std::vector<float> values(kRows * RowFloats(*whole_));
    for (float& value : values)
      value = static_cast<float>(static_cast<int>(random.Below(2001)) - 1000) / 500;
    in_->Write(0, values);
  }
  std::unique_ptr<StageBackend> MakeShard(const std::string& layers, const std::string& column) {
    auto shard = GetParam().make_shard(*ParseShardRequest(layers, column));
    EXPECT_TRUE(shard.ok()) << shard.status();
    return shard.ok() ? *std::move(shard) : nullptr;
  }
  // The layer's output of rows [first, first + count).
  std::vector<float> Ffn(StageBackend& backend, uint32_t layer, uint32_t first, uint32_t count) {
    const BufferRef in = Rows(backend, count), out = Rows(backend, count);
    in->Write(0, Copy(*whole_, *in_, first, count));
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
      const BufferRef in = Rows(*shard, 1);
      const absl::Status refused = shard->FfnLayer(layer, 1, *in, *out)->Wait();
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
      EXPECT_EQ(static_cast<bool>(SameBits(partial, wanted)), largest == 0)
          << "only of zeros a piece is the whole";
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
