// Goal: the suite of backends catches each planted fault by the case that is there for it, and
// passes a backend without one. Method: planted_backend, a program of the suite over a backend with
// one fault, and the table that it prints.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>

#include <cstdio>
#include <string>
#include <vector>

#include "tests/exact/real_model.h"
#include "tests/fakes/planted_backend.h"

namespace tandem {
namespace {

using ::testing::Contains;
using ::testing::IsEmpty;

struct Outcome {
  int exit_code = -1;
  std::vector<std::string> cases, failed;  // "FfnConformance.TheInputIsLeftAlone"
  std::string text;
};

Outcome RunSuite(const std::string& fault) {
  Outcome outcome;
  const std::string command = absl::StrCat("TANDEM_PLANTED=", fault, " '", exact::BinaryDir(),
                                           "/tests/planted_backend' 2>&1");
  std::FILE* const pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return outcome;
  char part[4096];
  for (size_t n = 0; (n = std::fread(part, 1, sizeof part, pipe)) > 0;)
    outcome.text.append(part, n);
  const int status = pclose(pipe);
  if (WIFEXITED(status)) outcome.exit_code = WEXITSTATUS(status);
  for (const absl::string_view line : absl::StrSplit(outcome.text, '\n')) {
    const std::vector<std::string> words = absl::StrSplit(line, ' ', absl::SkipEmpty());
    if (words.size() < 3 || words[0].substr(0, 8) != "Planted/") continue;
    outcome.cases.push_back(words[0].substr(8));
    if (words[2] == "FAIL") outcome.failed.push_back(words[0].substr(8));
  }
  return outcome;
}

TEST(BackendSuite, ABackendWithoutAFaultPassesEveryCase) {
  const Outcome outcome = RunSuite("none");
  EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
  EXPECT_THAT(outcome.failed, IsEmpty());
  EXPECT_GE(outcome.cases.size(), 25u) << outcome.text;
}

struct Planted {
  const char* fault;
  const char* caught_by;
};

class PlantedBackendFault : public testing::TestWithParam<Planted> {};

TEST_P(PlantedBackendFault, IsCaughtByItsCase) {
  const Outcome outcome = RunSuite(GetParam().fault);
  EXPECT_EQ(outcome.exit_code, 1) << outcome.text;
  EXPECT_THAT(outcome.failed, Contains(GetParam().caught_by)) << outcome.text;
}

constexpr Planted kPlanted[] = {
    {"no_name", "BackendConformance.DescribesItself"},
    {"other_class_each_time", "BackendConformance.EqualClassesHaveEqualBits"},
    {"class_of_a_stage_it_has_not", "FfnConformance.SaysWhatItHoldsAndItsClass"},
    {"other_bits_each_time", "FfnConformance.EqualClassesHaveEqualBits"},
    {"batch_dependent", "FfnConformance.ARowDoesNotDependOnTheBatchWhateverItsSize"},
    {"place_dependent", "BackendConformance.RowsDoNotDependOnTheBatchAroundThem"},
    {"chunk_dependent", "BackendConformance.ChunksOfAnySizeGiveTheSameBits"},
    {"one_row_for_all", "FfnConformance.AnotherRowIsAnotherResult"},
    {"forgets_first_token", "BackendConformance.EveryRowCounts"},
    {"ignores_ffn_out", "BackendConformance.TheFfnOutputIsAddedToTheResidual"},
    {"spoils_input", "FfnConformance.TheInputIsLeftAlone"},
    {"writes_for_zero_rows", "BackendConformance.ZeroRowsAreAnsweredAndTouchNothing"},
    {"buffers_forget", "BackendConformance.BuffersGiveBackWhatWasWritten"},
    {"kv_reversed", "BackendConformance.KvReadFromOneBackendContinuesOnAnother"},
    {"copies_nothing", "BackendConformance.CopiedBlocksHoldTheSameRowsAndPartWays"},
    {"keeps_old_kv", "BackendConformance.ACancelledSequenceLeavesNothingInItsBlocks"},
    {"token_of_the_batch", "BackendConformance.GreedyTokensDoNotDependOnTheBatch"},
    {"token_of_logprobs", "BackendConformance.AskingForLogprobsChangesNoToken"},
    {"takes_any_token", "BackendConformance.WhatIsOutOfRangeIsRefused"},
    {"takes_any_layer", "BackendConformance.WhatIsOutOfRangeIsRefused"},
    {"takes_any_stage", "BackendConformance.AStageThatWasNotLoadedIsRefused"},
    {"shard_holds_all",
     "ShardConformance.ALayerShardHasTheWholesBitsForItsLayersAndRefusesTheOthers"},
    {"piece_is_the_whole", "ShardConformance.PiecesOfColumnsAddUpToTheLayerWhateverTheBatch"},
    {"takes_any_shard", "ShardConformance.WhatTheModelHasNotIsRefused"},
};

INSTANTIATE_TEST_SUITE_P(Each, PlantedBackendFault, testing::ValuesIn(kPlanted),
                         [](const auto& info) { return info.param.fault; });

TEST(BackendSuite, EveryFaultThatCanBePlantedHasItsCase) {
  EXPECT_EQ(std::size(kPlanted) + 1, test::BackendFaults().size());  // and none
}

}  // namespace
}  // namespace tandem
