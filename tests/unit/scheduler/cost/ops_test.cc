#include "scheduler/cost/ops.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/scheduler/cost/shapes.h"
#include "tests/unit/scheduler/model/shipped_catalog.h"

namespace tandem::cost {
namespace {

using model::ModelShape;
using model::Precision;
using testing::ElementsAre;

std::vector<std::string> NamesOf(const std::vector<Op>& ops) {
  std::vector<std::string> names;
  for (const Op& op : ops) names.push_back(op.name);
  return names;
}

const Op& Find(const std::vector<Op>& ops, absl::string_view name) {
  const auto found =
      std::find_if(ops.begin(), ops.end(), [&](const Op& op) { return op.name == name; });
  EXPECT_NE(found, ops.end()) << name;
  return *found;
}

// But for the order of the sum: the experts touched are no whole number.
void ExpectEqual(const Work& a, const Work& b) {
  EXPECT_NEAR(a.weight_bytes, b.weight_bytes, 1e-12 * b.weight_bytes);
  EXPECT_NEAR(a.kv_bytes, b.kv_bytes, 1e-12 * b.kv_bytes);
  EXPECT_NEAR(a.flops, b.flops, 1e-12 * b.flops);
}

// Goal: what is listed is what the cost model times. Method: for every model of the catalog, each
// call's ops against work.h's sum.
TEST(Ops, AddUpToTheWorkOfEveryCall) {
  const Precision fp8{model::Dtype::kFp8};
  for (const std::string& name : model::Shipped().ModelNames()) {
    SCOPED_TRACE(name);
    const ModelShape shape = *model::Shipped().FindModel(name);
    const AttentionRows rows = AttentionRows::Even(shape, 7, 7 * 1000);
    Work step = EmbedWork(shape, fp8, 7) + HeadWork(shape, fp8, 7);
    Work prompt = EmbedWork(shape, fp8, 300);
    for (uint64_t layer = 0; layer < shape.layers; layer++) {
      const Work attention = AttentionWork(shape, fp8, layer, rows);
      const Work ffn = FfnWork(shape, fp8, FfnShard(), layer, 7);
      ExpectEqual(TotalWork(AttentionOps(shape, fp8, layer, rows)), attention);
      ExpectEqual(TotalWork(FfnOps(shape, fp8, layer, 7)), ffn);
      step += attention + ffn;
      prompt += PrefillWork(shape, fp8, layer, PrefillRows::Of(shape, 0, 300));
    }
    ExpectEqual(TotalWork(DecodeStepOps(shape, fp8, rows)), step);
    ExpectEqual(TotalWork(PromptOps(shape, fp8, 300)), prompt);
  }
}

TEST(Ops, DenseStepInOrder) {
  const std::vector<Op> ops =
      DecodeStepOps(Llama70B(), {}, AttentionRows::Even(Llama70B(), 64, 64 * 8192));
  EXPECT_THAT(NamesOf(ops), ElementsAre("embedding", "attention_norm", "q_proj", "k_proj", "v_proj",
                                        "kv_write", "attention", "o_proj", "ffn_norm", "ffn",
                                        "final_norm", "head", "sampling"));
  for (const Op& op : ops) {
    const bool once = op.name == "embedding" || op.name == "final_norm" || op.name == "head" ||
                      op.name == "sampling";
    EXPECT_EQ(op.calls, once ? 1u : 80u) << op.name;
    EXPECT_EQ(op.stage, op.name == "ffn" ? Stage::kFfn : Stage::kAttention) << op.name;
  }
  EXPECT_EQ(Find(ops, "q_proj").shape, "[64, 8192] x [8192, 8192]");
  EXPECT_EQ(Find(ops, "k_proj").shape, "[64, 8192] x [8192, 1024]");
  EXPECT_EQ(Find(ops, "ffn").shape, "[64, 8192] x 3 x [8192, 28672]");
  EXPECT_EQ(Find(ops, "attention").shape, "64 rows x 64 heads, 524288 cached positions");
}

TEST(Ops, BytesAreWeightsKvAndRows) {
  const std::vector<Op> ops =
      DecodeStepOps(Llama70B(), {}, AttentionRows::Even(Llama70B(), 64, 64 * 8192));
  const Op& k = Find(ops, "k_proj");
  EXPECT_EQ(k.work.weight_bytes, 2.0 * 8192 * 1024);
  EXPECT_EQ(k.read_bytes, 64.0 * 8192 * 2);
  EXPECT_EQ(k.write_bytes, 64.0 * 1024 * 2);
  EXPECT_EQ(k.bytes(), 2.0 * 8192 * 1024 + 64.0 * (8192 + 1024) * 2);
  EXPECT_EQ(Find(ops, "kv_write").write_bytes, 64.0 * 2048 * 2);
  EXPECT_EQ(Find(ops, "kv_write").flops(), 0);
  // 64 query heads share 8 KV heads: 4·64·128 flops for 2·8·128·2 bytes a position, 8 a byte, and a
  // little less for the rows.
  EXPECT_NEAR(Find(ops, "attention").intensity(), 8, 0.1);
  EXPECT_NEAR(Find(ops, "ffn").intensity(), 64, 0.2);  // two flops a weight of two bytes and row
}

TEST(Ops, ExpertsAndWindowsAreOpsOfTheirOwn) {
  const std::vector<Op> moe =
      DecodeStepOps(DeepSeekV3(), {}, AttentionRows::Even(DeepSeekV3(), 64, 64 * 1000));
  EXPECT_EQ(Find(moe, "ffn").calls, 3u);  // the first layers are dense
  EXPECT_EQ(Find(moe, "experts").calls, 58u);
  EXPECT_EQ(Find(moe, "router").calls, 58u);
  EXPECT_EQ(Find(moe, "experts").shape, "[64, 7168] x 222.4 of 256 x 3 x [7168, 2048]");
  EXPECT_EQ(Find(moe, "shared_experts").shape, "[64, 7168] x 1 x 3 x [7168, 2048]");
  EXPECT_EQ(Find(moe, "kv_a_proj").shape, "[64, 7168] x [7168, 576]");
  const ModelShape windowed = *model::Shipped().FindModel("gpt-oss-120b");
  const std::vector<Op> two =
      DecodeStepOps(windowed, {}, AttentionRows::Even(windowed, 2, 2 * 1000));
  EXPECT_EQ(std::count_if(two.begin(), two.end(),
                          [](const Op& op) { return op.name == "attention" && op.calls == 18; }),
            2);
  EXPECT_EQ(Find(two, "attention").shape, "2 rows x 64 heads, 256 cached positions in the window");
}

TEST(Ops, PromptEndsWithItsKv) {
  const std::vector<Op> ops = PromptOps(Llama70B(), {}, 100);
  EXPECT_EQ(ops.front().name, "embedding");
  EXPECT_EQ(ops.back().name, "ffn");  // no head: the first token is the attention worker's
  for (const Op& op : ops) EXPECT_EQ(op.stage, Stage::kPrefill) << op.name;
}

TEST(Ops, NothingForNoRows) {
  EXPECT_TRUE(DecodeStepOps(Llama70B(), {}, {}).empty());
  EXPECT_TRUE(PromptOps(Llama70B(), {}, 0).empty());
  EXPECT_EQ(Op().intensity(), 0);
}

}  // namespace
}  // namespace tandem::cost
