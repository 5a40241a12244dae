// A file that is no whole dense llama is refused with its path, the tensor and the numbers; what is
// loaded is what the stages need.

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>

#include "tests/exact/tiny_model.h"
#include "workers/backend/ggml/end_tokens.h"
#include "workers/backend/ggml/ggml_backend.h"
#include "workers/backend/ggml/gguf_model.h"

namespace tandem {
namespace {

using exact::TinyModel;
using exact::WriteTinyModel;
using ggml_cpu::GgufModel;
using testing::AllOf;
using testing::HasSubstr;

class GgufTest : public testing::Test {
 protected:
  void SetUp() override {
    path_ = absl::StrCat(testing::TempDir(), "/tandem_gguf_", getpid(), ".gguf");
  }
  void TearDown() override { unlink(path_.c_str()); }

  absl::Status Open(const TinyModel& model) {
    if (!WriteTinyModel(model, path_)) return absl::InternalError("cannot write the fixture");
    return Load({Stage::kPrefill, Stage::kAttention, Stage::kFfn}).status();
  }
  absl::StatusOr<std::unique_ptr<GgmlBackend>> Load(std::set<Stage> stages, uint32_t kv_blocks = 2,
                                                    uint32_t threads = 1) {
    return GgmlBackend::Create({path_, std::move(stages), kv_blocks, 4, threads});
  }
  uint64_t FileBytes() const {
    return std::ifstream(path_, std::ios::ate | std::ios::binary).tellg();
  }

  std::string path_;
};

void ExpectError(const absl::Status& status, absl::StatusCode code, const std::string& path,
                 const std::vector<std::string>& words) {
  EXPECT_EQ(status.code(), code) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(path));
  for (const std::string& word : words) EXPECT_THAT(std::string(status.message()), HasSubstr(word));
}

TEST_F(GgufTest, AWholeModelLoads) {
  TinyModel model;
  ASSERT_TRUE(Open(model).ok()) << Open(model);
  auto backend = Load({Stage::kAttention});
  ASSERT_TRUE(backend.ok());
  const BackendInfo& info = (*backend)->info();
  EXPECT_EQ(info.model_name, "tiny");
  EXPECT_EQ(info.dimensions, (ModelDimensions{2, 64, 1, 32, 96, 256}));
  EXPECT_EQ(info.kv_row_bytes, 2u * 32 * 2);
  EXPECT_THAT(info.end_tokens, testing::ElementsAre(1, 2));
}

TEST_F(GgufTest, EachStageLoadsItsTensorsOnly) {
  ASSERT_TRUE(Open(TinyModel()).ok());
  // q8_0: 34 bytes for 32 values; norms are F32.
  const uint64_t attention = 2 * (64 * 4 + (64 * 64 * 2 + 64 * 32 * 2) / 32 * 34);
  const uint64_t ffn = 2 * (64 * 4 + 64 * 128 * 3 / 32 * 34);
  const uint64_t head = 64 * 4 + 64 * 96 / 32 * 34;
  const auto bytes = [&](std::set<Stage> stages) {
    auto backend = Load(std::move(stages));
    EXPECT_TRUE(backend.ok()) << backend.status();
    const BackendInfo& info = (*backend)->info();
    return std::vector<uint64_t>{info.attention_bytes, info.ffn_bytes, info.head_bytes};
  };
  EXPECT_THAT(bytes({Stage::kPrefill}), testing::ElementsAre(attention, ffn, head));
  EXPECT_THAT(bytes({Stage::kAttention}), testing::ElementsAre(attention, 0u, head));
  EXPECT_THAT(bytes({Stage::kFfn}), testing::ElementsAre(0u, ffn, 0u));
}

TEST_F(GgufTest, NumericsClassNamesFileBuildAndStages) {
  ASSERT_TRUE(Open(TinyModel()).ok());
  const auto whole = Load({Stage::kPrefill, Stage::kAttention, Stage::kFfn});
  const NumericsClass& numerics = (*whole)->info().numerics;
  EXPECT_THAT(numerics.prefill,
              testing::MatchesRegex("gguf:[0-9a-f]{16}/ggml/cpu/.*/threads:1/paged/kv:f16"));
  EXPECT_EQ(numerics.attention, numerics.prefill);
  EXPECT_THAT(numerics.ffn, testing::MatchesRegex("gguf:[0-9a-f]{16}/ggml/cpu/.*/threads:1/whole"));
  EXPECT_EQ((*Load({Stage::kFfn}))->info().numerics, (NumericsClass{"", "", numerics.ffn}));
  TinyModel other;
  other.seed = 2;
  ASSERT_TRUE(Open(other).ok());
  EXPECT_NE((*Load({Stage::kFfn}))->info().numerics.ffn, numerics.ffn)
      << "another file, the same class";
}

TEST_F(GgufTest, DigestIsTheFilesSha256) {
  ASSERT_TRUE(Open(TinyModel()).ok());
  const auto model = GgufModel::Open(path_);
  ASSERT_TRUE(model.ok());
  std::FILE* pipe = popen(absl::StrCat("sha256sum '", path_, "'").c_str(), "r");
  char hex[65] = {};
  ASSERT_EQ(std::fread(hex, 1, 64, pipe), 64u);
  pclose(pipe);
  EXPECT_EQ((*model)->sha256(), hex);
}

TEST_F(GgufTest, NoFileIsNotFound) {
  ExpectError(Load({Stage::kFfn}).status(), absl::StatusCode::kNotFound, path_, {"No such file"});
}

TEST_F(GgufTest, AnotherKindOfFileIsRefused) {
  std::ofstream(path_) << "PK\x03\x04 some archive";
  ExpectError(Load({Stage::kFfn}).status(), absl::StatusCode::kInvalidArgument, path_,
              {"not a GGUF", "17 bytes"});
}

TEST_F(GgufTest, TruncatedDataNamesTheTensorAndBothNumbers) {
  ASSERT_TRUE(Open(TinyModel()).ok());
  const uint64_t whole = FileBytes();
  ASSERT_EQ(truncate(path_.c_str(), static_cast<off_t>(whole - 1000)), 0);
  ExpectError(Load({Stage::kAttention}).status(), absl::StatusCode::kInvalidArgument, path_,
              {"truncated", exact::kTinyModelLastTensor, absl::StrCat("ends at byte ", whole),
               absl::StrCat("has ", whole - 1000, " bytes")});
}

TEST_F(GgufTest, TruncatedAnywhereIsRefused) {
  ASSERT_TRUE(Open(TinyModel()).ok());
  for (uint64_t bytes = FileBytes() - 1; bytes > 0; bytes = bytes * 9 / 10) {
    ASSERT_EQ(truncate(path_.c_str(), static_cast<off_t>(bytes)), 0);
    const absl::Status status = Load({Stage::kFfn}).status();
    ASSERT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bytes << ": " << status;
    ASSERT_THAT(std::string(status.message()),
                AllOf(HasSubstr(path_), HasSubstr(absl::StrCat(bytes, " bytes"))));
  }
}

TEST_F(GgufTest, AnotherArchitectureIsNamed) {
  TinyModel model;
  model.architecture = "gemma3";
  ExpectError(Open(model), absl::StatusCode::kUnimplemented, path_, {"'gemma3'", "'llama'"});
}

TEST_F(GgufTest, ExpertsAreNotSupported) {
  TinyModel model;
  model.experts = 8;
  ExpectError(Open(model), absl::StatusCode::kUnimplemented, path_, {"8 experts"});
}

TEST_F(GgufTest, ScaledRopeIsNotSupported) {
  TinyModel model;
  model.rope_scaling = "yarn";
  ExpectError(Open(model), absl::StatusCode::kUnimplemented, path_, {"yarn"});
}

TEST_F(GgufTest, AMissingTensorIsNamedWhateverTheStage) {
  TinyModel model;
  model.leave_out = "blk.1.attn_k.weight";
  ASSERT_TRUE(WriteTinyModel(model, path_));
  for (const Stage stage : {Stage::kPrefill, Stage::kAttention, Stage::kFfn}) {
    ExpectError(Load({stage}).status(), absl::StatusCode::kInvalidArgument, path_,
                {"'blk.1.attn_k.weight' is missing"});
  }
  model.leave_out = "token_embd.weight";
  ExpectError(Open(model), absl::StatusCode::kInvalidArgument, path_,
              {"'token_embd.weight' is missing"});
}

TEST_F(GgufTest, AMisshapenTensorIsNamedWithBothShapes) {
  TinyModel model;
  model.misshape = "blk.0.ffn_up.weight";
  ExpectError(Open(model), absl::StatusCode::kInvalidArgument, path_,
              {"'blk.0.ffn_up.weight'", "[64, 64]", "[64, 128]"});
}

TEST_F(GgufTest, ATensorThatWouldBeIgnoredIsRefused) {
  TinyModel model;
  model.add = "blk.0.attn_q.bias";
  ExpectError(Open(model), absl::StatusCode::kUnimplemented, path_, {"'blk.0.attn_q.bias'"});
}

TEST_F(GgufTest, AMissingKeyIsNamed) {
  TinyModel model;
  model.leave_out_key = "llama.attention.head_count";
  ExpectError(Open(model), absl::StatusCode::kInvalidArgument, path_,
              {"llama.attention.head_count"});
}

TEST_F(GgufTest, HeadsThatDoNotDivideAreRefused) {
  TinyModel model;
  model.heads = 3;
  ExpectError(Open(model), absl::StatusCode::kInvalidArgument, path_, {"3 attention heads", "64"});
}

// F32 and F16 products go through a kernel that sums in another order once there are several rows.
TEST_F(GgufTest, WeightsWhoseProductDependsOnTheBatchAreRefused) {
  TinyModel model;
  model.type = GGML_TYPE_F16;
  ExpectError(Open(model), absl::StatusCode::kUnimplemented, path_, {"f16", "batch"});
  for (const ggml_type type : {GGML_TYPE_Q8_0, GGML_TYPE_Q4_1}) {
    model.type = type;
    EXPECT_TRUE(Open(model).ok()) << ggml_type_name(type) << ": " << Open(model);
  }
}

TEST_F(GgufTest, NonsenseShardsAreRefused) {
  ASSERT_TRUE(Open(TinyModel()).ok());
  ExpectError(Load({}).status(), absl::StatusCode::kInvalidArgument, path_, {"no stage"});
  ExpectError(Load({Stage::kAttention}, 0).status(), absl::StatusCode::kInvalidArgument, path_,
              {"0 blocks"});
  EXPECT_TRUE(Load({Stage::kFfn}, 0).ok());
  ExpectError(Load({Stage::kFfn}, 0, 0).status(), absl::StatusCode::kInvalidArgument, "",
              {"0 compute threads"});
}

TEST(CheckCpu, NamesWhatIsMissing) {
  EXPECT_TRUE(ggml_cpu::CheckCpu({true, true, true, true}).ok());
  const absl::Status status = ggml_cpu::CheckCpu({true, false, false, true});
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("FMA, F16C"), Not(HasSubstr("AVX2,"))));
}

TEST(EndTokens, AreTheNamedOnesAndThoseKnownByText) {
  EXPECT_THAT(ggml_cpu::EndTokens({{"a", "<|im_end|>", "b", "<|endoftext|>"}, {2}}),
              testing::ElementsAre(1, 2, 3));
  EXPECT_THAT(ggml_cpu::EndTokens({{"<|end|>", "<|call|>", "<|return|>"}, {}}),
              testing::ElementsAre(1, 2));
  EXPECT_THAT(ggml_cpu::EndTokens({{"<|end|>", "<|call|>"}, {}}), testing::ElementsAre(0, 1));
}

}  // namespace
}  // namespace tandem
