#include <absl/strings/str_cat.h>
#include <unistd.h>

#include "scheduler/base/status.h"
#include "tests/exact/ffn_conformance.h"
#include "tests/exact/tiny_backend.h"
#include "tests/exact/tiny_model.h"
#include "workers/backend/deepened/deepened_backend.h"
#include "workers/backend/ggml/ggml_backend.h"

namespace tandem::exact {
namespace {

// The tiny model's two layers as the first of five: the second half of them is none of its own.
constexpr uint32_t kDeepLayers = 5;

absl::StatusOr<std::unique_ptr<StageBackend>> MakeDeepened(std::set<Stage> stages,
                                                           uint32_t kv_blocks,
                                                           uint32_t block_tokens,
                                                           const ShardRequest& request) {
  ASSIGN_OR_RETURN(const FfnShard shard, ResolveRequest(request, kDeepLayers));
  const std::string path = absl::StrCat(testing::TempDir(), "/tandem_deep_", getpid(), ".gguf");
  if (!WriteTinyModel(TinyModel(), path)) return absl::UnknownError("no file");
  ASSIGN_OR_RETURN(const auto file, ggml_cpu::GgufModel::Open(path));
  const uint32_t blocks = stages == std::set<Stage>{Stage::kFfn} ? 0 : kv_blocks;
  ASSIGN_OR_RETURN(std::unique_ptr<StageBackend> real,
                   GgmlBackend::Create({path, stages, blocks, block_tokens, 1, {}}, *file,
                                       RealPart(shard, file->shape().layers)));
  unlink(path.c_str());
  return DeepenedBackend::Create(std::move(real), kDeepLayers, shard);
}

BackendCase Deepened() {
  return {"tiny_deepened",
          [](std::set<Stage> stages, uint32_t kv_blocks, uint32_t block_tokens) {
            auto backend = MakeDeepened(std::move(stages), kv_blocks, block_tokens, {});
            EXPECT_TRUE(backend.ok()) << backend.status();
            return backend.ok() ? *std::move(backend) : nullptr;
          },
          [](const ShardRequest& shard) { return MakeDeepened({Stage::kFfn}, 0, 16, shard); }};
}

INSTANTIATE_TEST_SUITE_P(
    Ggml, BackendConformance,
    testing::Values(TinyCase("tiny_q8_0_tied", TinyModel()),
                    TinyCase("tiny_q4_1_output_matrix", TinyWithOutputMatrix()), Deepened()),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    Ggml, FfnConformance,
    testing::Values(TinyCase("tiny_q8_0_tied", TinyModel()),
                    TinyCase("tiny_q4_1_output_matrix", TinyWithOutputMatrix()), Deepened()),
    NameOf);

INSTANTIATE_TEST_SUITE_P(
    Ggml, ShardConformance,
    testing::Values(TinyCase("tiny_q8_0_tied", TinyModel()),
                    TinyCase("tiny_q4_1_output_matrix", TinyWithOutputMatrix()), Deepened()),
    NameOf);

TEST(GgmlBackend, OfAShardWithoutALayerNothingIsLoaded) {
  const auto none = MakeDeepened({Stage::kFfn}, 0, 16, *ParseShardRequest("2:5", "1/2"));
  ASSERT_TRUE(none.ok()) << none.status();
  const BackendInfo& info = (*none)->info();
  EXPECT_EQ(info.ffn_bytes + info.attention_bytes + info.head_bytes, 0u);
  EXPECT_EQ(info.shard, (FfnShard{2, 5, 1, 2}));
  const auto piece = MakeDeepened({Stage::kFfn}, 0, 16, *ParseShardRequest("0:2", "1/2"));
  ASSERT_TRUE(piece.ok()) << piece.status();
  EXPECT_GT((*piece)->info().ffn_bytes, 0u);
  EXPECT_EQ((*piece)->info().numerics, info.numerics) << "one class of one cut";
}

TEST(GgmlBackend, AShardIsForTheFfnStageAloneAndCutsWholeBlocks) {
  const ShardRequest half = *ParseShardRequest("all", "0/2");
  const absl::Status attention =
      MakeGgmlBackend({"x.gguf", {Stage::kAttention, Stage::kFfn}, 4, 16, 1, half}).status();
  EXPECT_EQ(attention,
            absl::InvalidArgumentError("x.gguf: a part of the FFN is for the ffn stage alone"));
  const absl::Status cut =
      LoadTiny(TinyModel(), {"", {Stage::kFfn}, 0, 16, 1, *ParseShardRequest("all", "0/200")})
          .status();
  EXPECT_EQ(cut.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(cut.message().find("quantisation blocks of 32, which cannot be cut into 200"),
            std::string::npos)
      << cut;
}

// Pieces of no equal size: 3 of the blocks that there are.
TEST(GgmlBackend, UnevenPiecesHoldEveryBlockOnce) {
  uint64_t bytes = 0;
  for (const char* column : {"0/3", "1/3", "2/3"}) {
    const auto piece =
        LoadTiny(TinyModel(), {"", {Stage::kFfn}, 0, 16, 1, *ParseShardRequest("all", column)});
    ASSERT_TRUE(piece.ok()) << piece.status();
    bytes += (*piece)->info().ffn_bytes;
  }
  const auto whole = MakeTiny(TinyModel(), {Stage::kFfn}, 0, 16);
  const ModelDimensions& model = whole->info().dimensions;
  const uint64_t norms = uint64_t{model.layers} * model.hidden * sizeof(float);
  EXPECT_EQ(bytes, whole->info().ffn_bytes + 2 * norms) << "each piece has the norm";
}

// RMS norm takes the scale of its input away, so F(8 x) is F(x) to a part in a thousand; with the
// residual in it, it would grow eightfold.
TEST(GgmlBackend, FfnOutputExcludesTheResidual) {
  const auto backend = MakeTiny(TinyModel(), {Stage::kFfn}, 0, 16);
  ASSERT_NE(backend, nullptr);
  const uint32_t hidden = backend->info().dimensions.hidden;
  const BufferRef in = *backend->AllocateRows(1), out = *backend->AllocateRows(1);
  for (uint32_t i = 0; i < hidden; ++i) in->host()[i] = 10.0f + static_cast<float>(i % 7);
  ASSERT_TRUE(backend->FfnLayer(0, 1, *in, *out)->Wait().ok());
  const std::vector<float> once(out->host(), out->host() + hidden);
  for (uint32_t i = 0; i < hidden; ++i) in->host()[i] *= 8;
  ASSERT_TRUE(backend->FfnLayer(0, 1, *in, *out)->Wait().ok());
  float largest = 0, difference = 0;
  for (uint32_t i = 0; i < hidden; ++i) {
    largest = std::max(largest, std::abs(once[i]));
    difference = std::max(difference, std::abs(once[i] - out->host()[i]));
  }
  EXPECT_GT(largest, 0.0f);
  EXPECT_LT(difference, 1e-3f * largest);
}

TEST(GgmlBackend, MoreRowsThanItsLimitAreRefused) {
  const auto backend = MakeTiny(TinyModel(), {Stage::kFfn}, 0, 16);
  ASSERT_NE(backend, nullptr);
  const BufferRef in = *backend->AllocateRows(GgmlBackend::kMaxRows + 1);
  const BufferRef out = *backend->AllocateRows(GgmlBackend::kMaxRows + 1);
  EXPECT_TRUE(backend->FfnLayer(0, GgmlBackend::kMaxRows, *in, *out)->Wait().ok());
  EXPECT_EQ(backend->FfnLayer(0, GgmlBackend::kMaxRows + 1, *in, *out)->Wait().code(),
            absl::StatusCode::kInvalidArgument);
}

// More batch shapes than the graph cache keeps: each is built again when it returns, with the same
// bits.
TEST(GgmlBackend, ShapesPastTheCachesLimitGiveTheSameBits) {
  const auto backend = MakeTiny(TinyModel(), {Stage::kFfn}, 0, 16);
  ASSERT_NE(backend, nullptr);
  constexpr uint32_t kShapes = ggml_cpu::GraphCache::kMaxSets + 20;
  const BufferRef in = *backend->AllocateRows(kShapes), out = *backend->AllocateRows(kShapes);
  const uint32_t hidden = backend->info().dimensions.hidden;
  for (uint32_t i = 0; i < kShapes * hidden; ++i)
    in->host()[i] = static_cast<float>(i % 97) - 48.0f;
  ASSERT_TRUE(backend->FfnLayer(1, 1, *in, *out)->Wait().ok());
  const std::vector<float> first(out->host(), out->host() + hidden);
  for (int pass = 0; pass < 2; ++pass) {
    for (uint32_t rows = 1; rows <= kShapes; ++rows) {
      ASSERT_TRUE(backend->FfnLayer(1, rows, *in, *out)->Wait().ok());
      ASSERT_EQ(std::memcmp(out->host(), first.data(), hidden * sizeof(float)), 0)
          << rows << " rows";
    }
  }
}

}  // namespace
}  // namespace tandem::exact
