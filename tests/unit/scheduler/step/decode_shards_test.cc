// Layer and column shards of the FFN: PROTOCOL section 6.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/step/decode_fixture.h"

namespace tandem::step {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

class DecodeShards : public DecodeFixture {
 protected:
  void Up(const std::string& holder, uint32_t max_rows = 8, uint32_t calls = 2) {
    machine_->OnHolderUp(holder, calls * max_rows * kHiddenBytes, max_rows, now_);
    Collect();
  }
  void Lose(const std::string& holder) {
    machine_->OnHolderLost(holder, absl::UnavailableError("stream broke"), now_);
    Collect();
  }
  void Group(std::vector<GroupHolder> holders) {
    machine_->SetGroup(std::move(holders), now_);
    Collect();
  }
  // Two columns, a replica of the second, and a whole holder as the last.
  void Columns() {
    Group({{"c0", {0, 2, 0, 2}}, {"c1", {0, 2, 1, 2}}, {"c1b", {0, 2, 1, 2}}, {"w", {}}});
    Up("c0");
    Up("c1");
  }
  std::vector<std::string> SentTo() const {
    std::vector<std::string> names;
    for (const SendA2f& send : sends_) names.push_back(send.holder);
    return names;
  }
  std::optional<TakenReply> Take(const SendA2f& send) {
    const auto taken = machine_->OnFfnReply(send.holder, send.call, false, now_);
    Collect();
    return taken;
  }
};

TEST_F(DecodeShards, EachLayerGoesToTheHolderOfIt) {
  Group({{"l0", {0, 1}}, {"l1", {1, 2}}});
  Up("l0");
  Run("a");
  EXPECT_FALSE(machine_->HasTask()) << "no step starts while a layer has no holder";
  Up("l1");
  Attend();
  EXPECT_THAT(SentTo(), ElementsAre("l0"));
  EXPECT_TRUE(Take(sends_[0])->last);
  Attend();
  EXPECT_THAT(SentTo(), ElementsAre("l0", "l1"));
  sends_.erase(sends_.begin());
  RunStep();
  EXPECT_EQ(TokensOf(Key("a")).size(), 1u);
}

TEST_F(DecodeShards, LossOfALayersOnlyHolderWaitsThenNamesTheLayer) {
  Group({{"l0", {0, 1}}, {"l1", {1, 2}}});
  Up("l0");
  Up("l1");
  Run("a");
  Attend();
  Lose("l1");
  EXPECT_EQ(machine_->NextDeadline(), Instant::Never()) << "nothing is to be sent there yet";
  Take(sends_[0]);
  Attend();
  EXPECT_EQ(machine_->NextDeadline(), now_ + config_.max_ffn_wait);
  machine_->OnTime(now_ + config_.max_ffn_wait);
  Collect();
  EXPECT_EQ(EndOf(Key("a")).status, absl::UnavailableError("no FFN worker of layer 1 for 10 s"));
  EXPECT_EQ(book_->free_blocks(), 64u);
}

TEST_F(DecodeShards, AMicroBatchWhoseLayerNobodyHoldsLetsTheOthersPass) {
  Group({{"l0", {0, 1}}, {"l1", {1, 2}}});
  Up("l0");
  Up("l1");
  Run("a");
  Run("b");
  Attend();
  Attend();
  ASSERT_EQ(sends_.size(), 2u);
  Take(sends_[0]);
  Lose("l1");
  Attend();  // the first, at layer 1: blocked
  ASSERT_EQ(sends_.size(), 2u);
  Lose("l0");
  Up("l0");
  EXPECT_THAT(SentTo(), ElementsAre("l0", "l0", "l0")) << "the second goes again, past the first";
}

TEST_F(DecodeShards, EveryPieceGetsTheSameRowsAndTheLastReplyEndsTheCall) {
  Columns();
  Run("a");
  Attend();
  ASSERT_THAT(SentTo(), ElementsAre("c0", "c1"));
  for (uint32_t column = 0; column < 2; column++) {
    EXPECT_EQ(sends_[column].column, column);
    EXPECT_EQ(sends_[column].columns, 2u);
    EXPECT_EQ(sends_[column].rows, 1u);
    EXPECT_EQ(sends_[column].call.attempt, 0u);
  }
  const TakenReply second = *Take(sends_[1]);
  EXPECT_EQ(second.column, 1u);
  EXPECT_FALSE(second.last);
  EXPECT_FALSE(machine_->HasTask());
  EXPECT_FALSE(Take(sends_[1]).has_value()) << "a piece is taken once";
  EXPECT_TRUE(Take(sends_[0])->last);
  EXPECT_TRUE(machine_->HasTask());
}

TEST_F(DecodeShards, ALostPieceAloneGoesToAnotherHolderOfTheCut) {
  Columns();
  Up("c1b");
  Up("w");
  Run("a");
  Attend();
  Take(sends_[0]);
  Lose("c1");
  ASSERT_THAT(SentTo(), ElementsAre("c0", "c1", "c1b"));
  EXPECT_EQ(sends_[2].column, 1u);
  EXPECT_EQ(sends_[2].call.attempt, 1u);
  EXPECT_EQ(sends_[2].crosses_from, 0u);
  EXPECT_TRUE(Take(sends_[2])->last) << "the first piece's answer is kept";
}

TEST_F(DecodeShards, WithoutThatTheWholeCallIsRedoneInAnotherCutAndCrosses) {
  Columns();
  Up("w");
  Run("a");
  Attend();
  Lose("c1");
  ASSERT_THAT(SentTo(), ElementsAre("c0", "c1", "w"));
  EXPECT_EQ(sends_[2].columns, 1u);
  EXPECT_EQ(sends_[2].call.attempt, 1u);
  EXPECT_EQ(sends_[2].crosses_from, 2u);
  EXPECT_FALSE(Take(sends_[0]).has_value()) << "its piece is of no use any more";
  EXPECT_TRUE(Take(sends_[2])->last);
  Attend();
  EXPECT_EQ(sends_.back().holder, "w");
  EXPECT_EQ(sends_.back().crosses_from, 0u) << "it crossed once";
  Up("c1");
  Take(sends_.back());
  sends_.clear();
  RunStep();
  Attend();
  EXPECT_THAT(SentTo(), ElementsAre("c0", "c1")) << "back to the group's first cut";
  EXPECT_EQ(sends_[0].crosses_from, 1u);
  EXPECT_EQ(sends_[1].crosses_from, 0u) << "said once a call";
}

TEST_F(DecodeShards, ReplicasAreNoCrossing) {
  machine_->SetGroup(WholeHolders({"f1", "f2"}), now_);
  Up("f1");
  Up("f2");
  Run("a");
  Attend();
  Lose("f1");
  EXPECT_EQ(sends_.back().crosses_from, 0u);
}

TEST_F(DecodeShards, AnIncompleteCutIsPassedOver) {
  Columns();
  Up("w");
  Lose("c0");
  Run("a");
  Attend();
  EXPECT_THAT(SentTo(), ElementsAre("w"));
}

TEST_F(DecodeShards, TwoHoldersLostOnOneCallFailItWhicheverPiecesTheyHad) {
  Columns();
  Up("c1b");
  Run("a");
  Attend();
  Lose("c0");
  EXPECT_EQ(machine_->sequences(), 1u);
  Lose("c1");
  EXPECT_EQ(EndOf(Key("a")).status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(book_->free_blocks(), 64u);
}

// A piece whose reply comes after its call has failed gives its credit back.
TEST_F(DecodeShards, CreditOfAbandonedPiecesComesBackWithTheirReplies) {
  Group({{"c0", {0, 2, 0, 2}}, {"c1", {0, 2, 1, 2}}, {"w", {}}});
  Up("c0", 1, 1);  // credit for one call
  Up("c1", 1, 1);
  Up("w", 1, 1);
  Run("a");
  Attend();
  const SendA2f abandoned = sends_[0];
  Lose("c1");
  ASSERT_EQ(sends_.back().holder, "w");
  Take(sends_.back());
  Up("c1", 1, 1);
  Attend();
  EXPECT_THAT(SentTo(), ElementsAre("c0", "c1", "w")) << "c0 owes a reply: no credit";
  EXPECT_FALSE(Take(abandoned).has_value());
  EXPECT_THAT(SentTo(), ElementsAre("c0", "c1", "w", "c0", "c1"));
}

TEST_F(DecodeShards, AColumnSetTakesAllItsCreditsOrNone) {
  Group({{"c0", {0, 2, 0, 2}}, {"c1", {0, 2, 1, 2}}});
  Up("c0", 1, 2);
  Up("c1", 1, 1);
  Run("a");
  Run("b");
  Attend();
  Attend();
  EXPECT_THAT(SentTo(), ElementsAre("c0", "c1"))
      << "the second call waits for c1 and takes nothing";
  Take(sends_[0]);
  Take(sends_[1]);
  EXPECT_THAT(SentTo(), ElementsAre("c0", "c1", "c0", "c1"));
}

TEST_F(DecodeShards, ARefusedPieceGoesToAnotherHolderOfTheCut) {
  Columns();
  Up("c1b");
  Run("a");
  Attend();
  EXPECT_TRUE(
      machine_->OnFfnRefused("c1", sends_[1].call, absl::ResourceExhaustedError("full"), now_));
  Collect();
  EXPECT_THAT(SentTo(), ElementsAre("c0", "c1", "c1b"));
  EXPECT_THAT(suspected_, IsEmpty());
}

// ---- Out of phase with the others at layer shards.

class DecodeStagger : public DecodeShards {
 protected:
  // Two layers, held by two; `first` is this worker's turn.
  void LayersBeginningWith(uint32_t first) {
    const std::vector<GroupHolder> order = {{"l0", {0, 1}}, {"l1", {1, 2}}};
    Group({order[first], order[1 - first]});
    Up("l0");
    Up("l1");
    Run("a", 40);
  }
  // A step of 10 ms whose calls were shared, or not.
  void Step(bool shared) {
    for (uint32_t layer = 0; layer < 2; layer++) {
      Attend();
      now_ = now_ + Duration::Milliseconds(5);
      EXPECT_TRUE(
          machine_->OnFfnReply(sends_.back().holder, sends_.back().call, shared, now_).has_value());
      Collect();
    }
    Draw();
  }
};

TEST_F(DecodeStagger, ALaterTurnHoldsItsNextStepBackAfterASharedOne) {
  LayersBeginningWith(1);
  Step(false);
  EXPECT_TRUE(machine_->HasTask());
  Step(true);
  EXPECT_FALSE(machine_->HasTask());
  EXPECT_FALSE(machine_->NextTask(now_).has_value());
  EXPECT_EQ(machine_->NextDeadline(), now_ + Duration::Milliseconds(5)) << "half a step";
  now_ = machine_->NextDeadline();
  machine_->OnTime(now_);
  for (int step = 0; step < 16; step++) {
    EXPECT_TRUE(machine_->HasTask()) << "once in 16 steps: " << step;
    Step(true);
  }
  EXPECT_FALSE(machine_->HasTask());
}

TEST_F(DecodeStagger, TheFirstTurnNeverYields) {
  LayersBeginningWith(0);
  Step(true);
  EXPECT_TRUE(machine_->HasTask());
}

TEST_F(DecodeStagger, NobodyYieldsWhereLayersAreNotCut) {
  Group({{"c1", {0, 2, 1, 2}}, {"c0", {0, 2, 0, 2}}});
  Up("c0");
  Up("c1");
  Run("a");
  for (uint32_t layer = 0; layer < 2; layer++) {
    sends_.clear();
    Attend();
    for (const SendA2f& send : std::vector<SendA2f>(sends_)) {
      EXPECT_TRUE(machine_->OnFfnReply(send.holder, send.call, true, now_).has_value());
    }
    Collect();
  }
  Draw();
  EXPECT_TRUE(machine_->HasTask());
}

}  // namespace
}  // namespace tandem::step
