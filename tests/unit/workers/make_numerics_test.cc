// The numbers of an emulated worker: whose they are, how deep, and what is refused.

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "services/runtime/catalog_files.h"
#include "tests/exact/tiny_model.h"
#include "workers/daemon/make_numerics.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

cost::CostTable Table(const std::string& shape) {
  const std::string root = std::getenv("TANDEM_SOURCE_DIR");
  const absl::StatusOr<model::Catalog> catalog = LoadCatalog({root + "/scheduler/model/catalog"});
  EXPECT_TRUE(catalog.ok()) << catalog.status();
  auto table = cost::CostTable::Create(*catalog->FindDevice("h100-x8"), *catalog->FindModel(shape),
                                       cost::CostOptions());
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

class MakeNumericsTest : public ::testing::Test {
 protected:
  ~MakeNumericsTest() override {
    for (const std::string& file : files_) unlink(file.c_str());
  }
  std::string Write(const exact::TinyModel& model, const std::string& name) {
    files_.push_back(absl::StrCat(testing::TempDir(), "/numerics_", getpid(), "_", name, ".gguf"));
    EXPECT_TRUE(exact::WriteTinyModel(model, files_.back()));
    return files_.back();
  }
  static WorkerConfig Config(const std::string& numerics, const std::string& tokenizer = "") {
    WorkerConfig config;
    config.stages = {"prefill", "attention", "ffn"};
    config.backend = "emulated";
    config.device = "h100-x8";
    config.model_shape = "smollm2-135m";
    config.numerics = numerics;
    config.model = tokenizer;
    EXPECT_TRUE(CheckWorkerConfig(config).ok());
    return config;
  }
  static absl::StatusOr<std::unique_ptr<StageBackend>> Make(const WorkerConfig& config) {
    return MakeNumerics(config, Table(config.model_shape), FfnShard{0, 30, 0, 1}, 8);
  }
  std::vector<std::string> files_;
};

TEST_F(MakeNumericsTest, AModelHasItsOwnWidthAndTheEmulatedDepth) {
  const auto made = Make(Config("model:" + Write({}, "small")));
  ASSERT_TRUE(made.ok()) << made.status();
  const BackendInfo& info = (*made)->info();
  EXPECT_EQ(info.dimensions.layers, 30u);
  EXPECT_EQ(info.dimensions.hidden, exact::TinyModel().hidden);
  EXPECT_THAT(info.numerics.ffn, HasSubstr("gguf:"));
}

TEST_F(MakeNumericsTest, AHashChainHasTheShapesAndTheTokenizersVocabulary) {
  const auto alone = Make(Config("synthetic"));
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_EQ((*alone)->info().dimensions.vocabulary, 49152u);
  EXPECT_EQ((*alone)->info().numerics.ffn, "synthetic/whole");
  const auto with_tokenizer = Make(Config("synthetic", Write({}, "small")));
  ASSERT_TRUE(with_tokenizer.ok()) << with_tokenizer.status();
  EXPECT_EQ((*with_tokenizer)->info().dimensions.vocabulary, exact::TinyModel().vocabulary);
}

TEST_F(MakeNumericsTest, FewerEmulatedLayersThanRealOnesAreRefusedWithBothNumbers) {
  exact::TinyModel deep;
  deep.layers = 31;
  const std::string file = Write(deep, "deep");
  EXPECT_EQ(Make(Config("model:" + file)).status(),
            absl::InvalidArgumentError(absl::StrCat(
                "numerics: ", file,
                " has 31 layers and model_shape smollm2-135m 30: a real model needs at least as "
                "many emulated layers")));
}

TEST_F(MakeNumericsTest, ATokenizerOfAnotherVocabularyIsRefusedWithBothNumbers) {
  exact::TinyModel other;
  other.vocabulary = 128;
  const std::string file = Write({}, "small"), tokenizer = Write(other, "other");
  EXPECT_TRUE(Make(Config("model:" + file, file)).ok());
  EXPECT_EQ(Make(Config("model:" + file, tokenizer)).status(),
            absl::InvalidArgumentError(
                absl::StrCat("numerics: ", file, " has a vocabulary of 96, the tokenizer of model ",
                             tokenizer, " one of 128")));
}

}  // namespace
}  // namespace tandem
