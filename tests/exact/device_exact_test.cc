// Goal: on a device whose memory the host cannot address the real model's tokens are the same in
// every topology, batch and chunking, and KV moves between it and the CPU. Method: the fake GPU.
// It computes on this CPU with ggml's own kernels, so its bits must also be libllama's: that shows
// that the graphs are right. Another device (TANDEM_DEVICE) is compared with itself, each sequence
// alone.

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "tests/exact/prompt_set.h"
#include "tests/exact/real_model.h"
#include "tests/exact/split_driver.h"
#include "tests/fakes/fake_gpu.h"
#include "workers/backend/ggml/device_backend.h"
#include "workers/backend/ggml/ggml_backend.h"

namespace tandem::exact {
namespace {

constexpr uint32_t kSlots = 6, kSlotTokens = 1024;
constexpr uint32_t kPages = 384, kPageTokens = 16;
constexpr uint64_t kSeed = 20261128;
const std::set<Stage> kAll = {Stage::kPrefill, Stage::kAttention, Stage::kFfn};

// Three short ones and one that is longer than 512 cells and a chunk.
std::string Prompts() {
  std::string text;
  for (int i = 0; i < 60; ++i) absl::StrAppend(&text, "Line ", i, " of a long and dull list. ");
  return absl::StrCat(R"({"prompts":[)", R"({"name":"capital","text":"The capital of France is",)",
                      R"("max_tokens":12},{"name":"list","text":"One, two, three, four,",)",
                      R"("max_tokens":9},{"name":"long","text":")", text,
                      R"(","max_tokens":8},{"name":"tale","text":"Once upon a time there was a",)",
                      R"("max_tokens":12}]})");
}

struct Device {
  std::unique_ptr<GgmlDeviceBackend> backend;
  std::vector<float> logits;  // of the last step

  LogitsOf LastLogits() {
    return [this]() -> absl::Span<const float> { return logits = backend->CopyLogits(); };
  }
};

Device OnGpu(std::set<Stage> stages, uint32_t blocks = kSlots,
             uint32_t block_tokens = kSlotTokens) {
  const bool keeps_kv = stages != std::set<Stage>{Stage::kFfn};
  auto backend = GgmlDeviceBackend::Create({ModelPath(),
                                            std::move(stages),
                                            keeps_kv ? blocks : 0,
                                            block_tokens,
                                            1,
                                            {},
                                            test::DeviceUnderTest()});
  EXPECT_TRUE(backend.ok()) << backend.status();
  if (!backend.ok()) std::exit(1);
  return {*std::move(backend), {}};
}

std::unique_ptr<GgmlBackend> OnCpu(std::set<Stage> stages) {
  auto backend = GgmlBackend::Create({ModelPath(), std::move(stages), kPages, kPageTokens, 1, {}});
  EXPECT_TRUE(backend.ok()) << backend.status();
  if (!backend.ok()) std::exit(1);
  return *std::move(backend);
}

class DeviceExactTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    test::DeviceUnderTest();  // before there are threads
    const std::string file = absl::StrCat(testing::TempDir(), "/tandem_device_", getpid());
    std::ofstream(file + ".json") << Prompts();
    const std::string command =
        absl::StrCat("'", BinaryDir(), "/tests/reference_dump' --model '", ModelPath(),
                     "' --prompts '", file, ".json' --out '", file, ".dump'");
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    auto read = ReadDump(file + ".dump");
    unlink((file + ".json").c_str());
    unlink((file + ".dump").c_str());
    ASSERT_TRUE(read.ok()) << read.status();
    reference_ = std::make_unique<Reference>(*std::move(read));
    if (!test::DeviceIsFake()) TakeOwnReference();
  }
  // What the device itself makes of each sequence alone stands for libllama's.
  static void TakeOwnReference() {
    Device whole = OnGpu(kAll);
    SplitDriver driver({whole.backend.get(), whole.backend.get(), whole.backend.get()}, kSlots,
                       kSlotTokens, kSeed);
    driver.set_logits(whole.LastLogits());
    std::vector<Sequence> sequences = Sequences();
    const absl::Status status = driver.Run(sequences, /*chunk=*/32, /*max_batch=*/1, 0);
    ASSERT_TRUE(status.ok()) << status;
    for (size_t i = 0; i < sequences.size(); ++i) {
      reference_->sequences[i].ids = sequences[i].ids;
      reference_->sequences[i].logits = sequences[i].logits;
    }
  }
  static void TearDownTestSuite() { reference_.reset(); }
  void SetUp() override { ASSERT_NE(reference_, nullptr); }

  static std::vector<Sequence> Sequences() {
    std::vector<Sequence> out;
    for (const ReferenceSequence& wanted : reference_->sequences) {
      Sequence sequence;
      sequence.prompt_ids = wanted.prompt_ids;
      sequence.max_tokens = wanted.max_tokens;
      sequence.sampling.temperature = 0;
      out.push_back(std::move(sequence));
    }
    return out;
  }
  // Runs all prompts and tells where ids or bits are not libllama's.
  static std::string Differs(SplitDriver& driver, uint32_t chunk, uint32_t max_batch,
                             uint32_t join_every) {
    std::vector<Sequence> sequences = Sequences();
    const absl::Status status = driver.Run(sequences, chunk, max_batch, join_every);
    if (!status.ok()) return status.ToString();
    for (size_t i = 0; i < sequences.size(); ++i) {
      const ReferenceSequence& wanted = reference_->sequences[i];
      if (sequences[i].ids != wanted.ids) return absl::StrCat(wanted.name, ": other tokens");
      const size_t bytes = wanted.logits.size() * sizeof(float);
      if (sequences[i].logits.size() != wanted.logits.size() ||
          std::memcmp(sequences[i].logits.data(), wanted.logits.data(), bytes) != 0)
        return absl::StrCat(wanted.name, ": other bits");
    }
    return "";
  }

  static inline std::unique_ptr<Reference> reference_;
};

TEST_F(DeviceExactTest, TheLongPromptIsLong) {
  size_t longest = 0;
  for (const ReferenceSequence& sequence : reference_->sequences)
    longest = std::max(longest, sequence.prompt_ids.size());
  EXPECT_GT(longest, 512u);
  EXPECT_LT(longest + 12, kSlotTokens);
}

TEST_F(DeviceExactTest, ColocatedAloneAndInABatch) {
  Device whole = OnGpu(kAll);
  for (const auto& [chunk, batch, join] : {std::tuple(32u, 1u, 0u), std::tuple(7u, 4u, 2u)}) {
    SplitDriver driver({whole.backend.get(), whole.backend.get(), whole.backend.get()}, kSlots,
                       kSlotTokens, kSeed);
    driver.set_logits(whole.LastLogits());
    EXPECT_EQ(Differs(driver, chunk, batch, join), "") << "batch " << batch;
  }
}

TEST_F(DeviceExactTest, PdAfdAndPdAfd) {
  Device whole = OnGpu(kAll), prefill = OnGpu({Stage::kPrefill}), ffn = OnGpu({Stage::kFfn});
  Device attention = OnGpu({Stage::kAttention});
  EXPECT_EQ(ffn.backend->info().ffn_bytes, 49'835'520u);
  EXPECT_EQ(prefill.backend->info().numerics.prefill, whole.backend->info().numerics.prefill);
  EXPECT_EQ(ffn.backend->info().numerics.ffn, whole.backend->info().numerics.ffn);
  struct Topology {
    const char* name;
    Device *prefill, *attention, *ffn;
  };
  for (const Topology& t :
       {Topology{"pd", &prefill, &whole, &whole}, Topology{"afd", &whole, &whole, &ffn},
        Topology{"pd-afd", &prefill, &attention, &ffn}}) {
    SplitDriver driver({t.prefill->backend.get(), t.attention->backend.get(), t.ffn->backend.get()},
                       kSlots, kSlotTokens, kSeed);
    driver.set_logits(t.attention->LastLogits());
    EXPECT_EQ(Differs(driver, 32, 4, 1), "") << t.name;
  }
}

TEST_F(DeviceExactTest, ScatteredPagesAreGathered) {
  Device paged = OnGpu(kAll, kPages, kPageTokens);
  SplitDriver driver({paged.backend.get(), paged.backend.get(), paged.backend.get()}, kPages,
                     kPageTokens, kSeed);
  driver.set_logits(paged.LastLogits());
  EXPECT_EQ(Differs(driver, 32, 4, 0), "");
}

// From the CPU's pages to the device's slots, and back: a crossing of classes, which a real GPU
// would show in the bits (and so is not asked).
TEST_F(DeviceExactTest, KvMovesBetweenPagesAndSlots) {
  const auto cpu = OnCpu(kAll);
  Device gpu = OnGpu(kAll);
  EXPECT_NE(cpu->info().numerics.prefill, gpu.backend->info().numerics.attention);
  EXPECT_EQ(cpu->info().kv_row_bytes, gpu.backend->info().kv_row_bytes);
  SplitDriver to_slots({cpu.get(), gpu.backend.get(), gpu.backend.get()}, kSlots, kSlotTokens,
                       kSeed, SplitDriver::KvSize{kPages, kPageTokens});
  to_slots.set_logits(gpu.LastLogits());
  EXPECT_EQ(Differs(to_slots, 32, 4, 1), "");
  SplitDriver to_pages({gpu.backend.get(), cpu.get(), cpu.get()}, kPages, kPageTokens, kSeed,
                       SplitDriver::KvSize{kSlots, kSlotTokens});
  to_pages.set_logits([&] { return cpu->last_logits(); });
  EXPECT_EQ(Differs(to_pages, 32, 4, 1), "");
}

// The faults of exact_test, by the same comparison.
TEST_F(DeviceExactTest, FaultsAreSeen) {
  Device whole = OnGpu(kAll);
  for (const Fault fault : {Fault::kSwapRows, Fault::kDropKvBlock, Fault::kRopeOffByOne}) {
    SplitDriver driver({whole.backend.get(), whole.backend.get(), whole.backend.get()}, kSlots,
                       kSlotTokens, kSeed);
    driver.set_logits(whole.LastLogits());
    driver.set_fault(fault);
    EXPECT_NE(Differs(driver, 32, 4, 0), "") << static_cast<int>(fault);
  }
}

}  // namespace
}  // namespace tandem::exact
