#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>

#include "services/gateway/text/llama/llama_text_model.h"

namespace tandem::gateway {
namespace {

std::string ModelPath() {
  if (const char* path = std::getenv("TANDEM_MODEL")) return path;
  const char* home = std::getenv("HOME");
  return std::string(home == nullptr ? "" : home) +
         "/.cache/tandem/models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

class LlamaTextModelTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    auto loaded = LoadLlamaTextModel(ModelPath());
    if (loaded.ok()) model_ = std::move(*loaded);
    status_ = loaded.status();
  }
  static void TearDownTestSuite() { model_.reset(); }
  void SetUp() override {
    ASSERT_TRUE(status_.ok()) << status_ << " (./dev setup fetches it, TANDEM_MODEL names another)";
  }

  static std::unique_ptr<TextModel> model_;
  static absl::Status status_;
};
std::unique_ptr<TextModel> LlamaTextModelTest::model_;
absl::Status LlamaTextModelTest::status_;

TEST_F(LlamaTextModelTest, TextSurvivesEncodingAndItsTokens) {
  for (const std::string text : {"Hello, world!", "Grüße aus 東京 🎉", " two  spaces\n\ttab", "a"}) {
    const auto ids = model_->Encode(text);
    ASSERT_TRUE(ids.ok()) << ids.status();
    std::string back;
    for (const uint32_t id : *ids) {
      back += model_->TokenBytes(id);
      EXPECT_LE(model_->TokenBytes(id).size(), model_->max_token_bytes());
    }
    EXPECT_EQ(back, text);
  }
}

TEST_F(LlamaTextModelTest, TheTemplateKeepsTheDefaultSystemPrompt) {
  const auto prompt = model_->RenderChat({{"user", "hi"}});
  ASSERT_TRUE(prompt.ok()) << prompt.status();
  EXPECT_EQ(*prompt,
            "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
            "Face<|im_end|>\n"
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
  const auto ours = model_->RenderChat({{"system", "Be brief."}, {"user", "hi"}});
  ASSERT_TRUE(ours.ok()) << ours.status();
  EXPECT_EQ(*ours,
            "<|im_start|>system\nBe "
            "brief.<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
}

TEST_F(LlamaTextModelTest, ControlTokensHaveANameAndNoText) {
  const auto ids = model_->Encode("<|im_end|>");
  ASSERT_TRUE(ids.ok());
  ASSERT_EQ(ids->size(), 1u) << "special tokens of a rendered template become themselves";
  EXPECT_EQ(model_->TokenBytes((*ids)[0]), "");
  EXPECT_EQ(model_->TokenName((*ids)[0]), "<|im_end|>");
}

TEST_F(LlamaTextModelTest, SaysItsNameAndSizes) {
  EXPECT_FALSE(model_->name().empty());
  EXPECT_EQ(model_->vocabulary_size(), 49152u);
  EXPECT_GE(model_->context_tokens(), 2048u);
}

TEST(LoadLlamaTextModel, NamesTheFileThatItCannotRead) {
  EXPECT_EQ(LoadLlamaTextModel("/nowhere/x.gguf").status().message(),
            "model /nowhere/x.gguf: no such file");
  const std::string path = testing::TempDir() + "/not-a-model.gguf";
  std::ofstream(path) << "GGUF but not really";
  const absl::Status status = LoadLlamaTextModel(path).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_NE(std::string(status.message()).find(path), std::string::npos);
}

}  // namespace
}  // namespace tandem::gateway
