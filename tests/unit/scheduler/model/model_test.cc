#include <gtest/gtest.h>

#include <absl/strings/str_replace.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "scheduler/model/chip.h"
#include "scheduler/model/model_shape.h"

namespace tandem::model {
namespace {

const std::filesystem::path& Catalog() {
  static const std::filesystem::path path =
      std::filesystem::path(std::getenv("TANDEM_SOURCE_DIR")) / "scheduler/model/catalog";
  return path;
}

std::string ReadText(const std::filesystem::path& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in) << path;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

TEST(Catalog, EveryFileIsReadAndNamedAfterWhatItHolds) {
  size_t files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(Catalog() / "chips")) {
    const auto chip = ReadChip(ReadText(entry.path()), entry.path().filename().string());
    ASSERT_TRUE(chip.ok()) << chip.status();
    EXPECT_EQ(chip->name, entry.path().stem());
    files++;
  }
  for (const auto& entry : std::filesystem::directory_iterator(Catalog() / "models")) {
    const auto shape = ReadModelShape(ReadText(entry.path()), entry.path().filename().string());
    ASSERT_TRUE(shape.ok()) << shape.status();
    EXPECT_EQ(shape->name, entry.path().stem());
    files++;
  }
  EXPECT_GE(files, 7u);
}

TEST(Chip, FiguresKeepTheirSources) {
  const auto chip = ReadChip(ReadText(Catalog() / "chips/h100-sxm.yaml"), "h100-sxm.yaml");
  ASSERT_TRUE(chip.ok()) << chip.status();
  EXPECT_EQ(chip->bandwidth_bytes_per_s.value, 3.35e12);
  EXPECT_EQ(chip->bandwidth_bytes_per_s.source, "aiconfigurator @095f58a h100_sxm.yaml");
  EXPECT_EQ(chip->memory_class, "hbm");
}

// Each edit of a good file is refused, naming line and key.
TEST(Chip, BadFilesAreRefusedWithLineAndKey) {
  const std::string good = ReadText(Catalog() / "chips/cs-3.yaml");
  const auto refusal = [&](const std::string& from, const std::string& to) {
    const std::string text = absl::StrReplaceAll(good, {{from, to}});
    EXPECT_NE(text, good);
    return std::string(ReadChip(text, "f.yaml").status().message());
  };
  EXPECT_EQ(refusal("dtype: fp16", "dtype: fp16\ncolour: blue"), "f.yaml:4: colour: unknown key");
  EXPECT_EQ(refusal("dtype: fp16\n", ""), "f.yaml:1: dtype: text is expected");
  EXPECT_EQ(
      refusal("value: 44e9", "value: many"),
      "f.yaml:5: memory_bytes: {value, source} is expected, the value a number from 1 to 1e+16");
  EXPECT_EQ(refusal(", source: \"Hot Chips 2026 CS-4 slides\"", ""),
            "f.yaml:13: link_latency_seconds: {value, source} is expected, the value a number from "
            "0 to 1");
  EXPECT_EQ(refusal("memory_class: sram", "memory_class: disk"),
            "f.yaml: memory_class: 'disk' is not hbm or sram");
  EXPECT_EQ(refusal("roofline_exponent: {value: 0", "roofline_exponent: {value: 3"),
            "f.yaml: roofline_exponent: 3 is not 0, 1, 2 or 4");
  EXPECT_EQ(ReadChip("[1, 2]", "f.yaml").status().message(), "f.yaml: a mapping is expected");
  EXPECT_EQ(ReadChip("name: [", "f.yaml").status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(ModelShape, BadFilesAreRefusedWithLineAndKey) {
  const std::string good = ReadText(Catalog() / "models/mixtral-8x7b.yaml");
  const auto refusal = [&](const std::string& from, const std::string& to) {
    return std::string(
        ReadModelShape(absl::StrReplaceAll(good, {{from, to}}), "f.yaml").status().message());
  };
  EXPECT_EQ(refusal("layers: 32", "layers: 0"),
            "f.yaml:3: layers: a whole number from 1 to 1000 is expected");
  EXPECT_EQ(refusal("layers: 32", "layers: 1.5"),
            "f.yaml:3: layers: a whole number from 1 to 1000 is expected");
  EXPECT_EQ(refusal("layers: 32\n", ""),
            "f.yaml:1: layers: a whole number from 1 to 1000 is expected");
  EXPECT_EQ(refusal("experts_per_token: 2", "experts_per_token: 9"),
            "f.yaml: experts_per_token: 9 of 8 experts");
}

// Source: facts/models.md.
TEST(ModelShape, ParametersAndKvBytesArePublishedOnes) {
  const auto shape =
      ReadModelShape(ReadText(Catalog() / "models/llama-3-70b.yaml"), "llama-3-70b.yaml");
  ASSERT_TRUE(shape.ok()) << shape.status();
  EXPECT_EQ(shape->kv_bytes_per_token(), 327'680u);
  EXPECT_EQ(shape->layers * shape->ffn_parameters() * 2, 112'742'891'520u);  // 112.7 GB in bf16
  const uint64_t total = shape->layers * (shape->ffn_parameters() + shape->attention_parameters()) +
                         2 * shape->head_parameters();
  EXPECT_NEAR(static_cast<double>(total), 70.55e9, 0.01e9);
}

}  // namespace
}  // namespace tandem::model
