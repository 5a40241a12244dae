// The policies that the router asks: who may queue, and who serves whom.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

#include "scheduler/policy/admission.h"
#include "scheduler/policy/attention_placement.h"
#include "scheduler/policy/ffn_group.h"
#include "scheduler/policy/prefill_placement.h"

namespace tandem::policy {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

// ---- Admission.

GenerateSpec Spec(size_t prompt_tokens, uint32_t max_tokens, uint32_t choices = 1) {
  GenerateSpec spec;
  spec.prompt_ids.assign(prompt_tokens, 7);
  spec.stop.max_tokens = max_tokens;
  for (uint32_t i = 0; i < choices; i++) spec.choices.push_back({i, 0, 0, {}});
  return spec;
}

TEST(Admit, TakesWhatFitsTheContextExactlyAndNamesTheNumbersOfWhatDoesNot) {
  const QueueView queue = {.longest_sequence = 100};
  const QueueLimits limits = {.max_queued_requests = 1};
  EXPECT_TRUE(Admit(Spec(60, 40), queue, limits).ok());
  const absl::Status status = Admit(Spec(60, 41), queue, limits);
  EXPECT_TRUE(absl::IsInvalidArgument(status));
  EXPECT_THAT(status.message(),
              HasSubstr("60 prompt tokens + 41 max_tokens exceed the context of 100"));
}

TEST(Admit, DoesNotGuessAContextBeforeAWorkerIsReady) {
  EXPECT_TRUE(Admit(Spec(1'000'000, 1), {}, {.max_queued_requests = 1}).ok());
}

TEST(Admit, RequestsAndResumesHaveBoundsOfTheirOwn) {
  const QueueLimits limits = {.max_queued_requests = 2, .max_queued_resumes = 1};
  GenerateSpec resume = Spec(4, 8);
  resume.resume = true;
  EXPECT_TRUE(absl::IsResourceExhausted(Admit(Spec(4, 8), {.requests = 2}, limits)));
  EXPECT_TRUE(Admit(resume, {.requests = 2}, limits).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Admit(resume, {.resumes = 1}, limits)));
  EXPECT_TRUE(Admit(Spec(4, 8), {.requests = 1, .resumes = 1}, limits).ok());
}

TEST(Admit, RefusesWhatHasNoMeaning) {
  const QueueLimits limits = {.max_queued_requests = 1, .max_queued_resumes = 1};
  EXPECT_TRUE(absl::IsInvalidArgument(Admit(Spec(0, 8), {}, limits)));
  EXPECT_TRUE(absl::IsInvalidArgument(Admit(Spec(4, 0), {}, limits)));
  EXPECT_TRUE(absl::IsInvalidArgument(Admit(Spec(4, 8, 0), {}, limits)));
  EXPECT_TRUE(Admit(Spec(4, 8, kMaxChoices), {}, limits).ok());
  EXPECT_TRUE(absl::IsInvalidArgument(Admit(Spec(4, 8, kMaxChoices + 1), {}, limits)));
  GenerateSpec done = Spec(4, 2);
  done.choices[0].emitted_ids = {1, 2};
  EXPECT_TRUE(absl::IsInvalidArgument(Admit(done, {}, limits))) << "nothing is left to emit";
  GenerateSpec joined = Spec(4, 8, 2);
  joined.choices[1].emitted_ids = {1};
  EXPECT_TRUE(absl::IsInvalidArgument(Admit(joined, {}, limits))) << "a resumed choice comes alone";
}

TEST(RetryAfter, IsTheQueuesLengthInTimeWithinAMinute) {
  EXPECT_EQ(RetryAfter({}), Duration::Seconds(1));
  const Duration second = Duration::Seconds(1);
  EXPECT_EQ(RetryAfter({.requests = 8, .resumes = 2, .placement_interval = second}),
            Duration::Seconds(10));
  EXPECT_EQ(RetryAfter({.requests = 1000, .placement_interval = second}), Duration::Seconds(60));
}

// ---- Attention placement.

AttentionView Attention(const char* id, int64_t free, uint32_t sequences = 0) {
  return {WorkerId(id), free, 100, 16, 1024, sequences, 8};
}

TEST(PlaceAttention, TakesTheLeastLoadedByTheLargerOfItsShares) {
  const AttentionDemand demand = {.start_tokens = 16, .final_tokens = 32, .choices = 1};
  EXPECT_EQ(PlaceAttention({Attention("a", 50), Attention("b", 60)}, demand), WorkerId("b"));
  // b has more free KV but is nearly out of sequences.
  EXPECT_EQ(PlaceAttention({Attention("a", 50), Attention("b", 60, 6)}, demand), WorkerId("a"));
  EXPECT_EQ(PlaceAttention({Attention("a", 50), Attention("b", 50)}, demand), WorkerId("a"));
}

TEST(PlaceAttention, AsksForThePromptsBlocksAndOneForEachChoice) {
  const AttentionDemand demand = {.start_tokens = 17, .final_tokens = 40, .choices = 3};
  EXPECT_EQ(BlocksAtStart(demand, 16), 5u);
  EXPECT_EQ(PlaceAttention({Attention("a", 4)}, demand), std::nullopt);
  EXPECT_EQ(PlaceAttention({Attention("a", 5)}, demand), WorkerId("a"));
  EXPECT_EQ(PlaceAttention({Attention("a", 50, 6)}, demand), std::nullopt) << "8 sequences at most";
}

TEST(PlaceAttention, NeverPromisesMoreThanAnEmptyWorkerHolds) {
  const AttentionView worker = Attention("a", 100);
  EXPECT_EQ(LongestSequence(worker), 1024u);
  EXPECT_TRUE(FitsEmpty(worker, {.start_tokens = 16, .final_tokens = 1024, .choices = 1}));
  EXPECT_FALSE(FitsEmpty(worker, {.start_tokens = 16, .final_tokens = 1025, .choices = 1}));
  EXPECT_FALSE(FitsEmpty(worker, {.start_tokens = 16, .final_tokens = 32, .choices = 9}));
  AttentionView small = worker;
  small.kv_blocks = 10;
  EXPECT_EQ(LongestSequence(small), 160u);
}

// ---- Prefill placement.

TEST(PlacePrefill, TakesTheSmallestUsedShareOfSlots) {
  EXPECT_EQ(PlacePrefill({}), std::nullopt);
  EXPECT_EQ(PlacePrefill({{{WorkerId("a"), 4, 4}}}), std::nullopt);
  EXPECT_EQ(PlacePrefill({{{WorkerId("a"), 2, 4}, {WorkerId("b"), 3, 8}}}), WorkerId("b"));
  EXPECT_EQ(PlacePrefill({{{WorkerId("a"), 1, 4}, {WorkerId("b"), 2, 8}}}), WorkerId("a"));
  EXPECT_EQ(PlacePrefill({{{WorkerId("a"), 4, 4}, {WorkerId("b"), 7, 8}}}), WorkerId("b"));
}

// ---- FFN groups.

GroupSeat Seat(const char* attention, const char* primary = "", std::set<WorkerId> suspected = {}) {
  return {WorkerId(attention), {WorkerId(primary)}, std::move(suspected)};
}

constexpr uint32_t kLayers = 6;

std::vector<HolderView> Holders(std::initializer_list<const char*> names) {
  std::vector<HolderView> holders;
  for (const char* name : names) holders.push_back({WorkerId(name), {0, kLayers}});
  return holders;
}

std::vector<std::string> Names(const std::vector<WorkerId>& group) {
  std::vector<std::string> names;
  names.reserve(group.size());
  for (const WorkerId& id : group) names.push_back(id.value());
  return names;
}

TEST(AssignFfnGroups, SpreadsPrimariesAndListsEveryHolderAsAFallback) {
  const auto groups = AssignFfnGroups({Seat("a1"), Seat("a2")}, Holders({"f1", "f2"}), kLayers);
  EXPECT_THAT(groups.at(WorkerId("a1")), ElementsAre(WorkerId("f1"), WorkerId("f2")));
  EXPECT_THAT(groups.at(WorkerId("a2")), ElementsAre(WorkerId("f2"), WorkerId("f1")));
}

TEST(AssignFfnGroups, WithoutHoldersEveryGroupIsEmpty) {
  const auto groups = AssignFfnGroups({Seat("a1", "gone")}, {}, kLayers);
  EXPECT_TRUE(groups.at(WorkerId("a1")).empty());
}

TEST(AssignFfnGroups, KeepsAPrimaryUnlessBalanceAsksForIt) {
  const auto kept =
      AssignFfnGroups({Seat("a1", "f2"), Seat("a2", "f1")}, Holders({"f1", "f2"}), kLayers);
  EXPECT_EQ(kept.at(WorkerId("a1")).front(), WorkerId("f2"));
  EXPECT_EQ(kept.at(WorkerId("a2")).front(), WorkerId("f1"));
  // f2 joins: one of three moves, the highest attention worker.
  const auto moved = AssignFfnGroups({Seat("a1", "f1"), Seat("a2", "f1"), Seat("a3", "f1")},
                                     Holders({"f1", "f2"}), kLayers);
  EXPECT_EQ(moved.at(WorkerId("a1")).front(), WorkerId("f1"));
  EXPECT_EQ(moved.at(WorkerId("a2")).front(), WorkerId("f1"));
  EXPECT_EQ(moved.at(WorkerId("a3")).front(), WorkerId("f2"));
}

TEST(AssignFfnGroups, ASuspectedHolderIsLastAndNoPrimaryWhileAnotherStands) {
  const auto groups =
      AssignFfnGroups({Seat("a1", "f1", {WorkerId("f1")})}, Holders({"f1", "f2"}), kLayers);
  EXPECT_THAT(groups.at(WorkerId("a1")), ElementsAre(WorkerId("f2"), WorkerId("f1")));
  const auto alone =
      AssignFfnGroups({Seat("a1", "f1", {WorkerId("f1")})}, Holders({"f1"}), kLayers);
  EXPECT_THAT(alone.at(WorkerId("a1")), ElementsAre(WorkerId("f1")));
}

std::vector<HolderView> FourColumnsAndLayers() {
  return {{WorkerId("c0"), {0, 6, 0, 2}},
          {WorkerId("c1"), {0, 6, 1, 2}},
          {WorkerId("l0"), {0, 3}},
          {WorkerId("l1"), {3, 6}}};
}

TEST(AssignFfnGroups, APrimaryOfEveryShardStandsFirstAndReplicasAreBalancedPerShard) {
  const std::vector<HolderView> holders = {{WorkerId("f1"), {3, 6}},
                                           {WorkerId("f2"), {0, 3}},
                                           {WorkerId("f3"), {3, 6}},
                                           {WorkerId("f4"), {0, 3}}};
  const auto groups = AssignFfnGroups({Seat("a1"), Seat("a2")}, holders, kLayers);
  EXPECT_THAT(Names(groups.at(WorkerId("a1"))), ElementsAre("f2", "f1", "f4", "f3"));
  EXPECT_THAT(Names(groups.at(WorkerId("a2"))), ElementsAre("f3", "f4", "f2", "f1"))
      << "the second seat's turn begins with the other layers";
}

TEST(AssignFfnGroups, TheCompleteCutOfFewestPiecesStandsFirst) {
  std::vector<HolderView> holders = FourColumnsAndLayers();
  EXPECT_THAT(Names(AssignFfnGroups({Seat("a")}, holders, kLayers).at(WorkerId("a"))),
              ElementsAre("l0", "l1", "c0", "c1"));
  holders.pop_back();  // whole layers do not cover any more
  EXPECT_THAT(Names(AssignFfnGroups({Seat("a")}, holders, kLayers).at(WorkerId("a"))),
              ElementsAre("c0", "c1", "l0"));
}

TEST(AssignFfnGroups, TheCutInUseStaysFirstWhileItIsComplete) {
  const GroupSeat on_columns{WorkerId("a"), {WorkerId("c0"), WorkerId("c1")}, {}};
  std::vector<HolderView> holders = FourColumnsAndLayers();
  EXPECT_THAT(Names(AssignFfnGroups({on_columns}, holders, kLayers).at(WorkerId("a"))),
              ElementsAre("c0", "c1", "l0", "l1"));
  const auto both = AssignFfnGroups({on_columns, Seat("b")}, holders, kLayers);
  EXPECT_EQ(both.at(WorkerId("b")).front(), WorkerId("c0")) << "a new worker joins the class";
  holders.erase(holders.begin());
  EXPECT_THAT(Names(AssignFfnGroups({on_columns}, holders, kLayers).at(WorkerId("a"))),
              ElementsAre("l0", "l1", "c1"));
}

TEST(AssignFfnGroups, ASuspectedHolderStaysBeforeTheOtherCuts) {
  const GroupSeat seat{WorkerId("a"), {}, {WorkerId("l0")}};
  EXPECT_THAT(Names(AssignFfnGroups({seat}, FourColumnsAndLayers(), kLayers).at(WorkerId("a"))),
              ElementsAre("l1", "l0", "c0", "c1"))
      << "another cut is another class: its turn comes when nobody of this one is up";
}

TEST(UncoveredLayers, NamesWhatIsMissing) {
  EXPECT_EQ(UncoveredLayers({FfnShard{0, 6}}, 6), "");
  EXPECT_EQ(UncoveredLayers({}, 6), "layers [0, 6)");
  EXPECT_EQ(UncoveredLayers({FfnShard{0, 2}, FfnShard{3, 5}}, 6), "layers [2, 3), layers [5, 6)");
  EXPECT_EQ(UncoveredLayers({FfnShard{0, 4}, FfnShard{2, 6}}, 6), "") << "overlapping";
  EXPECT_EQ(UncoveredLayers({FfnShard{0, 6, 0, 2}}, 6), "layers [0, 6) column 1/2");
  EXPECT_EQ(UncoveredLayers({FfnShard{0, 6, 0, 2}, FfnShard{0, 6, 0, 3}}, 6),
            "layers [0, 6) column 1/2");
  EXPECT_EQ(UncoveredLayers({FfnShard{0, 6, 0, 2}, FfnShard{0, 6, 1, 3}}, 6),
            "layers [0, 6) column 1/2")
      << "pieces of two cuts make no layer";
  EXPECT_EQ(UncoveredLayers({FfnShard{0, 3}, FfnShard{3, 6, 0, 2}, FfnShard{2, 6, 1, 2}}, 6), "")
      << "one cut a layer, not one for all";
}

// Every shape up to 6A6F, from nothing and with one holder less or more: balanced to within one.
TEST(AssignFfnGroups, PrimariesAreBalancedToWithinOneForEveryShape) {
  for (size_t attention = 1; attention <= 6; attention++) {
    for (size_t before = 1; before <= 6; before++) {
      for (size_t after = 1; after <= 6; after++) {
        std::vector<GroupSeat> seats;
        for (size_t a = 0; a < attention; a++)
          seats.push_back(Seat(("a" + std::to_string(a)).c_str()));
        std::vector<HolderView> holders;
        for (size_t f = 0; f < std::max(before, after); f++)
          holders.push_back({WorkerId("f" + std::to_string(f)), {0, kLayers}});
        const auto first = AssignFfnGroups(seats, absl::MakeSpan(holders).first(before), kLayers);
        for (GroupSeat& seat : seats) seat.current = first.at(seat.attention);
        std::map<WorkerId, size_t> primaries;
        for (size_t f = 0; f < after; f++) primaries[holders[f].id] = 0;
        for (const auto& [id, group] :
             AssignFfnGroups(seats, absl::MakeSpan(holders).first(after), kLayers))
          primaries.at(group.front())++;
        const auto [least, most] =
            std::minmax_element(primaries.begin(), primaries.end(),
                                [](const auto& a, const auto& b) { return a.second < b.second; });
        EXPECT_LE(most->second - least->second, 1u)
            << attention << "A, " << before << "F then " << after << "F";
      }
    }
  }
}

}  // namespace
}  // namespace tandem::policy
