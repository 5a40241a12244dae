// Goal: whole or split over three backends, batched, chunked and moved, every logit equals
// libllama's of that sequence alone; and a swapped row, a lost KV block or a RoPE one position off
// does not go unseen. Method: reference_dump (libllama, none of our backend) runs first; then the
// same prompts through StageBackends.

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "tests/exact/prompt_set.h"
#include "tests/exact/real_model.h"
#include "tests/exact/split_driver.h"
#include "workers/backend/ggml/ggml_backend.h"

namespace tandem::exact {
namespace {

constexpr uint32_t kKvBlocks = 512;
constexpr uint32_t kBlockTokens = 16;
constexpr uint64_t kSeed = 20261124;

std::unique_ptr<GgmlBackend> Load(std::set<Stage> stages) {
  ShardSpec spec{ModelPath(),  stages, stages == std::set<Stage>{Stage::kFfn} ? 0 : kKvBlocks,
                 kBlockTokens, 1,      {}};
  auto backend = GgmlBackend::Create(spec);
  if (!backend.ok()) {
    ADD_FAILURE() << backend.status();
    std::exit(1);
  }
  return *std::move(backend);
}

// How many decode steps have the reference's token and every bit of its logits.
struct Comparison {
  size_t steps = 0, bit_equal = 0;
  std::string first_difference;
};

Comparison Compare(const Reference& reference, const std::vector<Sequence>& sequences) {
  Comparison result;
  const size_t vocabulary = reference.vocabulary;
  for (size_t i = 0; i < sequences.size(); ++i) {
    const ReferenceSequence& wanted = reference.sequences[i];
    const Sequence& got = sequences[i];
    result.steps += wanted.ids.size();
    for (size_t step = 0; step < wanted.ids.size(); ++step) {
      const bool equal =
          step < got.ids.size() && got.ids[step] == wanted.ids[step] &&
          std::memcmp(got.logits.data() + step * vocabulary,
                      wanted.logits.data() + step * vocabulary, vocabulary * sizeof(float)) == 0;
      if (equal) {
        ++result.bit_equal;
      } else {
        if (result.first_difference.empty())
          result.first_difference = absl::StrCat(wanted.name, " at token ", step);
        break;  // later steps have other inputs
      }
    }
    EXPECT_LE(got.ids.size(), wanted.ids.size()) << wanted.name << " went past its end";
  }
  return result;
}

class ExactTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    const std::string dump = absl::StrCat(testing::TempDir(), "/tandem_exact_", getpid(), ".dump");
    const std::string command =
        absl::StrCat("'", BinaryDir(), "/tests/reference_dump' --model '", ModelPath(),
                     "' --prompts '", SourceDir(), "/tests/exact/prompts.json' --out '", dump, "'");
    ASSERT_EQ(std::system(command.c_str()), 0) << command;
    auto read = ReadDump(dump);
    unlink(dump.c_str());
    ASSERT_TRUE(read.ok()) << read.status();
    reference_ = std::make_unique<Reference>(*std::move(read));
    whole_ = Load({Stage::kPrefill, Stage::kAttention, Stage::kFfn});
  }
  static void TearDownTestSuite() {
    reference_.reset();
    whole_.reset();
  }
  void SetUp() override { ASSERT_TRUE(reference_ != nullptr && whole_ != nullptr); }

  // The first `count` prompts (0: all) with the reference's limits.
  static std::vector<Sequence> Sequences(size_t count = 0) {
    std::vector<Sequence> out;
    for (const ReferenceSequence& wanted : reference_->sequences) {
      if (count != 0 && out.size() == count) break;
      Sequence sequence;
      sequence.prompt_ids = wanted.prompt_ids;
      sequence.max_tokens = wanted.max_tokens;
      sequence.sampling.temperature = 0;
      out.push_back(std::move(sequence));
    }
    return out;
  }
  // Runs on the whole backend and compares.
  static Comparison RunWhole(std::vector<Sequence> sequences, uint32_t chunk, uint32_t max_batch,
                             uint32_t join_every, Fault fault = Fault::kNone) {
    SplitDriver driver({whole_.get(), whole_.get(), whole_.get()}, kKvBlocks, kBlockTokens, kSeed);
    driver.set_fault(fault);
    driver.set_logits([] { return whole_->last_logits(); });
    const absl::Status status = driver.Run(sequences, chunk, max_batch, join_every);
    EXPECT_TRUE(status.ok()) << status;
    return Compare(*reference_, sequences);
  }

  static std::vector<Sequence> RunShards(const std::vector<std::unique_ptr<GgmlBackend>>& shards,
                                         std::vector<Sequence> sequences, uint32_t max_batch,
                                         uint32_t join_every, Fault fault = Fault::kNone);

  static inline std::unique_ptr<Reference> reference_;
  static inline std::unique_ptr<GgmlBackend> whole_;
};

TEST_F(ExactTest, PromptsCoverWhatThePromiseNames) {
  size_t longest = 0, over_300 = 0;
  for (const ReferenceSequence& sequence : reference_->sequences) {
    longest = std::max(longest, sequence.prompt_ids.size());
    if (sequence.prompt_ids.size() > 300) ++over_300;
  }
  EXPECT_GE(reference_->sequences.size(), 12u);
  EXPECT_GE(over_300, 1u);
  EXPECT_GT(longest, 512u);  // where ggml's attention changes its kernel for several threads
}

TEST_F(ExactTest, BackendKnowsLibllamasEndTokens) {
  EXPECT_EQ(whole_->info().end_tokens, reference_->end_tokens);
}

TEST_F(ExactTest, EachSequenceAloneEqualsLibllama) {
  const Comparison result = RunWhole(Sequences(), /*chunk=*/32, /*max_batch=*/1, /*join_every=*/0);
  EXPECT_EQ(result.bit_equal, result.steps) << result.first_difference;
}

TEST_F(ExactTest, BatchOfEightWithJoinsLeavesAndOddChunksEqualsLibllama) {
  const Comparison result = RunWhole(Sequences(14), /*chunk=*/7, /*max_batch=*/8, /*join_every=*/2);
  EXPECT_EQ(result.bit_equal, result.steps) << result.first_difference;
}

TEST_F(ExactTest, SplitOverThreeBackendsWithKvMovedEqualsLibllama) {
  const auto prefill = Load({Stage::kPrefill});
  const auto attention = Load({Stage::kAttention});
  const auto ffn = Load({Stage::kFfn});
  EXPECT_EQ(ffn->info().ffn_bytes, 49'835'520u);
  EXPECT_EQ(ffn->info().attention_bytes + ffn->info().head_bytes, 0u);
  EXPECT_EQ(attention->info().attention_bytes, 16'657'920u);
  EXPECT_EQ(attention->info().head_bytes, 30'083'328u);
  EXPECT_EQ(attention->info().ffn_bytes, 0u);
  EXPECT_EQ(
      prefill->info().ffn_bytes + prefill->info().attention_bytes + prefill->info().head_bytes,
      96'576'768u);
  EXPECT_EQ(prefill->info().numerics.prefill, whole_->info().numerics.prefill);
  EXPECT_EQ(attention->info().numerics, (NumericsClass{"", whole_->info().numerics.attention, ""}));
  EXPECT_EQ(ffn->info().numerics, (NumericsClass{"", "", whole_->info().numerics.ffn}));

  SplitDriver driver({prefill.get(), attention.get(), ffn.get()}, kKvBlocks, kBlockTokens, kSeed);
  driver.set_logits([&] { return attention->last_logits(); });
  std::vector<Sequence> sequences = Sequences();
  const absl::Status status =
      driver.Run(sequences, /*chunk=*/13, /*max_batch=*/8, /*join_every=*/1);
  ASSERT_TRUE(status.ok()) << status;
  const Comparison result = Compare(*reference_, sequences);
  EXPECT_EQ(result.bit_equal, result.steps) << result.first_difference;
}

// ---- Shards of the FFN over several workers, with the attention and prefill of the whole backend.

// Of "layers column" each, in shard order.
std::vector<std::unique_ptr<GgmlBackend>> LoadShards(
    const std::vector<std::pair<std::string, std::string>>& parts) {
  std::vector<std::unique_ptr<GgmlBackend>> shards;
  for (const auto& [layers, column] : parts) {
    auto shard = GgmlBackend::Create(
        {ModelPath(), {Stage::kFfn}, 0, kBlockTokens, 1, *ParseShardRequest(layers, column)});
    EXPECT_TRUE(shard.ok()) << shard.status();
    shards.push_back(*std::move(shard));
  }
  return shards;
}

// Ids and logits of the sequences, decoded over the shards.
std::vector<Sequence> ExactTest::RunShards(const std::vector<std::unique_ptr<GgmlBackend>>& shards,
                                           std::vector<Sequence> sequences, uint32_t max_batch,
                                           uint32_t join_every, Fault fault) {
  std::vector<StageBackend*> holders;
  holders.reserve(shards.size());
  for (const auto& shard : shards) holders.push_back(shard.get());
  SplitDriver driver({whole_.get(), whole_.get(), nullptr, holders}, kKvBlocks, kBlockTokens,
                     kSeed);
  driver.set_fault(fault);
  driver.set_logits([] { return whole_->last_logits(); });
  const absl::Status status = driver.Run(sequences, /*chunk=*/32, max_batch, join_every);
  EXPECT_TRUE(status.ok()) << status;
  return sequences;
}

bool SameIdsAndBits(const std::vector<Sequence>& a, const std::vector<Sequence>& b) {
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].ids != b[i].ids || a[i].logits.size() != b[i].logits.size() ||
        std::memcmp(a[i].logits.data(), b[i].logits.data(), a[i].logits.size() * sizeof(float)) !=
            0) {
      return false;
    }
  }
  return true;
}

TEST_F(ExactTest, LayerShardsOverTwoWorkersEqualLibllama) {
  const auto shards = LoadShards({{"0/2", "0/1"}, {"1/2", "0/1"}});
  EXPECT_EQ(shards[0]->info().ffn_bytes + shards[1]->info().ffn_bytes, 49'835'520u);
  EXPECT_EQ(shards[0]->info().numerics.ffn, whole_->info().numerics.ffn);
  const Comparison result = Compare(*reference_, RunShards(shards, Sequences(), 8, 1));
  EXPECT_EQ(result.bit_equal, result.steps) << result.first_difference;
}

// A class of its own: the same ids and bits whatever the batch, and over whatever layer shards.
TEST_F(ExactTest, ColumnShardsGiveTheSameBitsInEveryBatchAndTopology) {
  const auto two = LoadShards({{"all", "0/2"}, {"all", "1/2"}});
  const uint64_t norms = 30 * 576 * sizeof(float);
  EXPECT_EQ(two[0]->info().ffn_bytes + two[1]->info().ffn_bytes, 49'835'520u + norms);
  const std::vector<Sequence> alone = RunShards(two, Sequences(6), 1, 0);
  EXPECT_TRUE(SameIdsAndBits(alone, RunShards(two, Sequences(6), 1, 0))) << "a second run";
  EXPECT_TRUE(SameIdsAndBits(alone, RunShards(two, Sequences(6), 4, 2))) << "joins and leaves";
  const auto four = LoadShards({{"0/2", "0/2"}, {"0/2", "1/2"}, {"1/2", "0/2"}, {"1/2", "1/2"}});
  EXPECT_EQ(four[0]->info().numerics.ffn, two[0]->info().numerics.ffn);
  EXPECT_TRUE(SameIdsAndBits(alone, RunShards(four, Sequences(6), 6, 0))) << "cut by layers too";
}

TEST_F(ExactTest, APartialLeftOutIsSeen) {
  const auto two = LoadShards({{"all", "0/2"}, {"all", "1/2"}});
  EXPECT_FALSE(SameIdsAndBits(RunShards(two, Sequences(1), 1, 0),
                              RunShards(two, Sequences(1), 1, 0, Fault::kLeaveOutPartial)));
}

// Of three: F32 addition of two is commutative, so their order never shows.
TEST_F(ExactTest, PartialsAddedInArrivalOrderAreSeen) {
  const auto three = LoadShards({{"all", "0/3"}, {"all", "1/3"}, {"all", "2/3"}});
  EXPECT_FALSE(SameIdsAndBits(RunShards(three, Sequences(1), 1, 0),
                              RunShards(three, Sequences(1), 1, 0, Fault::kArrivalOrder)));
}

// The faults: the same comparison, and it must fail.

TEST_F(ExactTest, TwoRowsSwappedIsSeen) {
  const Comparison result = RunWhole(Sequences(2), 32, 2, 0, Fault::kSwapRows);
  EXPECT_LT(result.bit_equal, result.steps);
  EXPECT_EQ(result.first_difference, "capital at token 0");
}

TEST_F(ExactTest, KvBlockDroppedIsSeen) {
  const Comparison result = RunWhole(Sequences(2), 32, 2, 0, Fault::kDropKvBlock);
  EXPECT_LT(result.bit_equal, result.steps);
  EXPECT_EQ(result.first_difference, "capital at token 0");
}

TEST_F(ExactTest, RopeOffByOneIsSeen) {
  // The tool of the fault is innocent: turned by nothing, keys keep every bit.
  std::vector<uint8_t> keys(64 * 2), before;
  for (size_t i = 0; i < keys.size(); ++i)
    keys[i] = static_cast<uint8_t>(i % 2 == 0 ? i * 37 : 0x3c + i % 4);
  before = keys;
  RotateKeys(absl::MakeSpan(keys), 64, 100000.0f, 0);
  ASSERT_EQ(keys, before);

  const Comparison result = RunWhole(Sequences(2), 32, 2, 0, Fault::kRopeOffByOne);
  EXPECT_LT(result.bit_equal, result.steps);
  EXPECT_EQ(result.first_difference, "capital at token 0");
}

TEST_F(ExactTest, WithoutAFaultTheSameTwoSequencesAreEqual) {
  const Comparison result = RunWhole(Sequences(2), 32, 2, 0);
  EXPECT_EQ(result.bit_equal, result.steps) << result.first_difference;
}

}  // namespace
}  // namespace tandem::exact
