// Goal: a device whose memory the host cannot address keeps every promise of a backend, and tells
// what it cannot do. Method: a fake GPU, ggml-rpc on loopback, through the same suite as the CPU.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "tests/exact/ffn_conformance.h"
#include "tests/exact/tiny_backend.h"
#include "tests/fakes/fake_gpu.h"
#include "workers/backend/ggml/device_backend.h"
#include "workers/backend/ggml/device_list.h"

namespace tandem::exact {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

INSTANTIATE_TEST_SUITE_P(Device, BackendConformance,
                         testing::Values(TinyCase("q8_0_tied", TinyModel(), test::DeviceUnderTest),
                                         TinyCase("q4_1_output_matrix", TinyWithOutputMatrix(),
                                                  test::DeviceUnderTest)),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Device, FfnConformance,
                         testing::Values(TinyCase("q8_0_tied", TinyModel(), test::DeviceUnderTest)),
                         NameOf);
INSTANTIATE_TEST_SUITE_P(Device, ShardConformance,
                         testing::Values(TinyCase("q8_0_tied", TinyModel(), test::DeviceUnderTest)),
                         NameOf);

constexpr uint32_t kBlocks = 8, kBlockTokens = 512;
const std::set<Stage> kAll = {Stage::kPrefill, Stage::kAttention, Stage::kFfn};

class DeviceBackendTest : public testing::Test {
 protected:
  void SetUp() override {
    backend_ = MakeTiny(TinyModel(), kAll, kBlocks, kBlockTokens, test::DeviceUnderTest());
    ASSERT_NE(backend_, nullptr);
    device_ = dynamic_cast<GgmlDeviceBackend*>(backend_.get());
    ASSERT_NE(device_, nullptr);
    residual_ = *backend_->AllocateRows(4);
    ffn_out_ = *backend_->AllocateRows(4);
  }
  // All layers of one token more for each of so many sequences, and what was drawn.
  std::vector<step::SampledToken> Step(uint32_t sequences, uint32_t position,
                                       const Sampling& sampling) {
    std::vector<TokenId> ids(sequences, 5);
    std::vector<step::KvRow> rows;
    for (uint32_t i = 0; i < sequences; ++i) rows.push_back({5, position, &tables_[i]});
    EXPECT_TRUE(backend_->Embed(ids, *residual_)->Wait().ok());
    for (uint32_t layer = 0; layer < backend_->info().dimensions.layers; ++layer) {
      const Buffer* before = layer == 0 ? nullptr : ffn_out_.get();
      EXPECT_TRUE(backend_->AttentionLayer(layer, rows, *residual_, before)->Wait().ok());
      EXPECT_TRUE(backend_->FfnLayer(layer, sequences, *residual_, *ffn_out_)->Wait().ok());
    }
    std::vector<step::SampledToken> tokens;
    const std::vector<TokenId> none;
    const std::vector<step::SampleRow> samples(sequences, {&sampling, 1, 0, &none, &none});
    EXPECT_TRUE(backend_->HeadAndSample(samples, *residual_, ffn_out_.get(), tokens)->Wait().ok());
    return tokens;
  }

  std::unique_ptr<StageBackend> backend_;
  GgmlDeviceBackend* device_ = nullptr;
  BufferRef residual_, ffn_out_;
  std::vector<step::BlockTable> tables_ = {{0}, {3}, {5}, {1}};
};

TEST_F(DeviceBackendTest, RowsAreNotTheHosts) {
  EXPECT_EQ(residual_->host(), nullptr);
  EXPECT_THAT(backend_->info().numerics.attention, HasSubstr("/slots/kv:f16"));
  if (!test::DeviceIsFake()) return;
  EXPECT_EQ(backend_->info().name, "ggml-rpc");
  EXPECT_THAT(backend_->info().numerics.attention,
              AllOf(HasSubstr("/ggml/rpc/"), testing::Not(HasSubstr("batch-dependent"))));
}

// Ids, and the places of the rows for the first layer and for the others: four of each. The
// likeliest of the logits come back, as ids and values. Nothing crosses between layers.
TEST_F(DeviceBackendTest, AStepCopiesItsInputsOnceAndBringsBackOnlyTheLikeliest) {
  Sampling greedy;
  greedy.temperature = 0;
  for (const uint32_t position : {0u, 1u}) Step(4, position, greedy);  // graphs are built
  const ggml_cpu::TransferCounts before = device_->transfers();
  Step(4, 2, greedy);
  const ggml_cpu::TransferCounts after = device_->transfers();
  EXPECT_EQ(after.uploads - before.uploads, 1u + 2 * 3);  // ids; positions, places, masks, twice
  EXPECT_EQ(after.downloads - before.downloads, 2u);
  EXPECT_EQ(after.download_bytes - before.download_bytes,
            4u * GgmlDeviceBackend::kTopCandidates * (sizeof(int32_t) + sizeof(float)));
  EXPECT_EQ(after.full_logit_rows, 0u);
}

TEST_F(DeviceBackendTest, RowsOfLogitsThatAreNeededWholeAreCounted) {
  Sampling sampling;
  sampling.temperature = 0;
  sampling.top_logprobs = 2;
  const auto tokens = Step(3, 0, sampling);
  EXPECT_EQ(device_->transfers().full_logit_rows, 3u);
  EXPECT_EQ(tokens[0].top.size(), 2u);
  sampling = {};  // no top_k
  Step(2, 1, sampling);
  EXPECT_EQ(device_->transfers().full_logit_rows, 5u);
  sampling.top_k = 10;
  Step(2, 2, sampling);
  EXPECT_EQ(device_->transfers().full_logit_rows, 5u);
}

// One block a sequence, or neighbouring ones: read in place. Scattered: gathered first. The same
// bits.
TEST_F(DeviceBackendTest, SlotsAndScatteredBlocksHaveTheSameBits) {
  Sampling greedy;
  greedy.temperature = 0;
  const auto logits_of = [&](const step::BlockTable& table) {
    tables_[0] = table;
    // Over the border of the first block: 512.
    for (uint32_t position = 0; position < kBlockTokens + 3; position += 1) {
      if (position < kBlockTokens - 3) continue;
      Step(1, position, greedy);
    }
    return device_->CopyLogits();
  };
  const std::vector<uint8_t> zeros(backend_->info().kv_row_bytes * (kBlockTokens - 3));
  for (const step::BlockTable& table : {step::BlockTable{2, 3}, step::BlockTable{7, 4}}) {
    for (uint32_t layer = 0; layer < 2; ++layer)
      ASSERT_TRUE(backend_->WriteKv(layer, table, 0, kBlockTokens - 3, zeros).ok());
  }
  EXPECT_EQ(logits_of({2, 3}), logits_of({7, 4}));
}

TEST(DeviceErrors, NoSuchDeviceListsWhatThereIs) {
  const std::string gpu = test::FakeGpu();
  const auto missing = LoadTiny(TinyModel(), {"", {Stage::kFfn}, 0, 16, 1, {}, "cuda:0"});
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()),
              AllOf(HasSubstr("'cuda:0'"), HasSubstr("there is: cpu, " + gpu)));
  EXPECT_FALSE(ggml_cpu::FindDevice("rpc:1").ok());
  EXPECT_EQ(ggml_cpu::FindDevice("rpc")->name, gpu);
  EXPECT_EQ(ggml_cpu::FindDevice("RPC0")->name, gpu);
  EXPECT_EQ(ggml_cpu::FindDevice("CPU")->type, "cpu");
  EXPECT_THAT(ggml_cpu::DevicesText(ggml_cpu::ListDevices()),
              AllOf(HasSubstr("cpu "), HasSubstr("rpc:0 "), HasSubstr(" gpu ")));
}

TEST(DeviceErrors, TooLittleMemoryNamesBothNumbers) {
  const std::string gpu = test::FakeGpu();
  const uint64_t free = ggml_cpu::FindDevice(gpu)->memory_free;
  ASSERT_GT(free, 0u);
  const TinyModel model;
  const uint64_t block_bytes =
      uint64_t{model.layers} * 2 * (model.hidden / model.heads) * model.kv_heads * 2 * 1024;
  const auto blocks = static_cast<uint32_t>(free / block_bytes * 4);
  const auto full = LoadTiny(model, {"", kAll, blocks, 1024, 1, {}, gpu});
  EXPECT_EQ(full.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.status().message()),
              testing::ContainsRegex("device RPC0: [0-9]+ KV blocks of 1024 tokens of [0-9]+ "
                                     "bytes exceed [0-9]+ bytes free of [0-9]+"));
}

}  // namespace
}  // namespace tandem::exact
