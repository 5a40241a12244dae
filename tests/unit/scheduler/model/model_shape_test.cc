// Model files, and the arithmetic of the models that facts/models.md works out.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/model/model_shape.h"
#include "services/runtime/catalog_files.h"
#include "tests/unit/scheduler/model/catalog_texts.h"

namespace tandem::model {
namespace {

std::string Refusal(absl::string_view from, absl::string_view to) {
  const std::string text = absl::StrReplaceAll(kModelText, {{from, to}});
  EXPECT_NE(text, kModelText) << from;
  return std::string(ReadModelShape(text, "f.yaml").status().message());
}

ModelShape Named(const std::string& name) {
  static const auto catalog =
      LoadCatalog({absl::StrCat(std::getenv("TANDEM_SOURCE_DIR"), "/scheduler/model/catalog")});
  EXPECT_TRUE(catalog.ok()) << catalog.status();
  const auto shape = catalog->FindModel(name);
  EXPECT_TRUE(shape.ok()) << shape.status();
  return shape.value_or(ModelShape());
}

TEST(ModelShape, BadFilesAreRefusedWithLineAndKey) {
  EXPECT_EQ(Refusal("layers: 6", "layers: 0"), "f.yaml:3: layers: 0 is not in [1, 1000]");
  EXPECT_EQ(Refusal("layers: 6", "layers: 1.5"), "f.yaml:3: layers: '1.5' is no integer");
  EXPECT_EQ(Refusal("layers: 6\n", ""), "f.yaml:1: layers: is missing");
  EXPECT_EQ(Refusal("hidden: 64", "hidden: -64"), "f.yaml:4: hidden: -64 is not in [1, 16777216]");
  EXPECT_EQ(Refusal("experts_per_token: 2", "experts_per_token: 9"),
            "f.yaml:14: experts_per_token: 9 of 8 experts");
  EXPECT_EQ(Refusal("dense_layers: 1", "dense_layers: 7"), "f.yaml:16: dense_layers: 7 of 6");
  EXPECT_EQ(Refusal("dense_ffn: 256\n", ""), "f.yaml:1: dense_ffn: is missing");
  EXPECT_EQ(Refusal("experts: 8\n", ""), "f.yaml:13: experts_per_token: unknown key");
  EXPECT_EQ(Refusal("kv_heads: 2", "kv_heads: 3"), "f.yaml:8: kv_heads: 3 does not divide 4");
  EXPECT_EQ(Refusal("window: 128\n", ""), "f.yaml:10: full_attention_every: needs a window");
  EXPECT_EQ(Refusal("kv_heads: 2", "mla: {kv_rank: 8, rope_dim: 2, nope_dim: 4}"),
            "f.yaml:8: mla.value_dim: is missing");
  EXPECT_EQ(Refusal("kv_heads: 2", "mla: {kv_rank: 8, rope_dim: 2, nope_dim: 4, value_dim: 4}"),
            "f.yaml:9: head_dim: unknown key");
  EXPECT_EQ(Refusal("name: small", "name: small\nweight_bits: 16"),
            "f.yaml:2: weight_bits: unknown key");
}

TEST(ModelShape, ModelTooLargeForItsArithmeticIsRefused) {
  const std::string text = absl::StrReplaceAll(
      kModelText, {{"hidden: 64", "hidden: 16777216"}, {"\nffn: 32", "\nffn: 16777216"}});
  EXPECT_THAT(ReadModelShape(text, "f.yaml").status().message(),
              testing::HasSubstr("parameters; at most 1e+15"));
}

TEST(ModelShape, LayersAreDenseOrExpertsWindowedOrFull) {
  const auto shape = ReadModelShape(kModelText, "f.yaml");
  ASSERT_TRUE(shape.ok()) << shape.status();
  EXPECT_FALSE(shape->HasExperts(0));
  EXPECT_TRUE(shape->HasExperts(1));
  EXPECT_EQ(shape->ffn_parameters(0), 3u * 64 * 256);
  EXPECT_EQ(shape->ffn_parameters(1), (8u + 1) * 3 * 64 * 32);
  EXPECT_EQ(shape->router_parameters(0), 0u);
  EXPECT_EQ(shape->router_parameters(1), 64u * 8);
  EXPECT_TRUE(shape->IsWindowed(0));
  EXPECT_TRUE(shape->IsWindowed(1));
  EXPECT_FALSE(shape->IsWindowed(2));
  EXPECT_FALSE(shape->IsWindowed(5));
  EXPECT_EQ(shape->windowed_layers(), 4u);
}

struct Published {
  const char* name;
  double parameters_b, active_b;  // billions; 0: none published
  uint64_t kv_bytes_per_token;    // 16 bits, all layers
};

// Source: facts/models.md, which rounds to the digits given here.
TEST(ModelShape, ParametersAndKvBytesAreThoseOfTheFacts) {
  const Published rows[] = {
      {"llama-3-8b", 8.03, 0, 131'072},       {"llama-3-70b", 70.55, 0, 327'680},
      {"llama-3-405b", 405.85, 0, 516'096},   {"llama-2-70b", 68.98, 0, 327'680},
      {"mistral-7b", 7.24, 0, 131'072},       {"smollm2-135m", 0.134, 0, 23'040},
      {"gemma-2-9b", 9.24, 0, 344'064},       {"gemma-2-27b", 27.23, 0, 376'832},
      {"gemma-3-12b", 11.77, 0, 393'216},     {"gemma-3-27b", 27.01, 0, 507'904},
      {"qwen3-8b", 8.19, 0, 147'456},         {"qwen3-32b", 32.76, 0, 262'144},
      {"mixtral-8x7b", 46.70, 12.9, 131'072}, {"mixtral-8x22b", 140.6, 39.1, 229'376},
      {"deepseek-v3", 671.0, 37.6, 70'272},   {"kimi-k2", 1026, 32.9, 70'272},
      {"qwen3-30b-a3b", 30.5, 3.35, 98'304},  {"qwen3-235b-a22b", 235.1, 22.2, 192'512},
      {"gpt-oss-120b", 116.8, 5.7, 73'728},   {"gpt-oss-20b", 20.9, 4.2, 49'152},
  };
  for (const Published& row : rows) {
    SCOPED_TRACE(row.name);
    const ModelShape shape = Named(row.name);
    EXPECT_NEAR(static_cast<double>(shape.parameters()) / 1e9, row.parameters_b,
                row.parameters_b * 4e-3);
    if (row.active_b > 0) {
      EXPECT_NEAR(static_cast<double>(shape.active_parameters()) / 1e9, row.active_b,
                  row.active_b * 0.01);
    }
    EXPECT_EQ(shape.kv_elements_per_token() * 2, row.kv_bytes_per_token);
  }
}

// Source: facts/models.md.
TEST(ModelShape, ArithmeticOfTheFacts) {
  const ModelShape llama = Named("llama-3-70b");
  EXPECT_EQ(llama.layers * llama.ffn_parameters(0) * 2, 112'742'891'520u);  // 112.7 GB in bf16
  EXPECT_EQ(llama.ffn_parameters(0) * 2 / 3, 469'762'048u);                 // one matrix, 469.8 MB
  const ModelShape deepseek = Named("deepseek-v3");
  EXPECT_NEAR(58.0 * 256 * static_cast<double>(deepseek.expert_parameters()) / 1e9, 653.9, 0.1);
  EXPECT_NEAR(static_cast<double>(deepseek.expert_parameters()) / 1e6, 44.0, 0.1);
  // gpt-oss: only the full layers grow with the context.
  EXPECT_EQ(Named("gpt-oss-120b").kv_elements_growing() * 2, 36'864u);
  EXPECT_EQ(Named("gpt-oss-20b").kv_elements_growing() * 2, 24'576u);
  EXPECT_EQ(Named("mistral-7b").kv_elements_growing(), 0u);
  EXPECT_EQ(Named("gemma-3-12b").windowed_layers(), 40u);
}

}  // namespace
}  // namespace tandem::model
