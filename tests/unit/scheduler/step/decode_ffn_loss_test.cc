// Loss and change of FFN holders: PROTOCOL section 5, row F, and section 6.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/step/decode_fixture.h"

namespace tandem::step {
namespace {

class DecodeFfnLoss : public DecodeFixture {
 protected:
  void Up(const std::string& holder, uint32_t max_rows = 8) {
    machine_->OnHolderUp(holder, 2 * max_rows * kHiddenBytes, max_rows, now_);
    Collect();
  }
  void Lose(const std::string& holder) {
    machine_->OnHolderLost(holder, absl::UnavailableError("stream broke"), now_);
    Collect();
  }
  // A sequence whose first call is at f1, with f2 behind it.
  void CallAtF1() {
    machine_->SetGroup(WholeHolders({"f1", "f2"}), now_);
    Up("f2");
    Up("f1");
    Run("a");
    Attend();
    ASSERT_EQ(sends_.size(), 1u);
    ASSERT_EQ(sends_[0].holder, "f1");
  }
};

TEST_F(DecodeFfnLoss, TheCallGoesToTheNextHolderUnderTheNextAttempt) {
  CallAtF1();
  Lose("f1");
  ASSERT_EQ(sends_.size(), 2u);
  EXPECT_EQ(sends_[1].holder, "f2");
  EXPECT_EQ(sends_[1].call.attempt, 1u);
  EXPECT_EQ(sends_[1].rows, 1u);
  ASSERT_EQ(suspected_.size(), 1u);
  EXPECT_EQ(suspected_[0].holder, "f1");
  EXPECT_FALSE(Reply(sends_[0]));  // too late
  EXPECT_TRUE(Reply(sends_[1]));
  sends_.clear();
  RunStep();
  EXPECT_EQ(TokensOf(Key("a")).size(), 1u);
}

TEST_F(DecodeFfnLoss, ALossIsReportedOnce) {
  CallAtF1();
  Lose("f1");
  Lose("f1");
  EXPECT_EQ(suspected_.size(), 1u);
}

TEST_F(DecodeFfnLoss, RepliesThatMatchNothingAreRefused) {
  CallAtF1();
  const SendA2f call = sends_[0];
  for (int field = 0; field < 5; field++) {
    SendA2f wrong = call;
    if (field == 0) wrong.call.step++;
    if (field == 1) wrong.call.layer++;
    if (field == 2) wrong.call.micro_batch++;
    if (field == 3) wrong.call.attempt++;
    if (field == 4) wrong.holder = "f2";
    EXPECT_FALSE(Reply(wrong)) << field;
  }
  EXPECT_TRUE(Reply(call));
  EXPECT_FALSE(Reply(call));
}

TEST_F(DecodeFfnLoss, TwoHoldersThatDieOnOneCallFailItsSequences) {
  CallAtF1();
  Lose("f1");
  Lose("f2");
  EXPECT_EQ(EndOf(Key("a")).reason, EndReason::kFailed);
  EXPECT_EQ(EndOf(Key("a")).status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(book_->free_blocks(), 64u);
}

TEST_F(DecodeFfnLoss, TwoLossesOnTwoCallsFailNobody) {
  CallAtF1();
  Lose("f1");
  EXPECT_TRUE(Reply(sends_[1]));
  Attend();
  EXPECT_EQ(sends_.back().call.attempt, 0u);
  Up("f1");
  Lose("f2");
  EXPECT_EQ(sends_.back().holder, "f1");
  EXPECT_TRUE(Reply(sends_.back()));
  sends_.clear();
  RunStep();
  EXPECT_EQ(TokensOf(Key("a")).size(), 1u);
}

TEST_F(DecodeFfnLoss, WithoutAHolderACallWaitsAndGoesOnWhenOneComes) {
  WithFfn();
  Run("a");
  Attend();
  Lose("f");
  EXPECT_EQ(machine_->NextDeadline(), now_ + config_.max_ffn_wait);
  now_ = now_ + Duration::Seconds(9);
  Up("f");
  EXPECT_EQ(machine_->NextDeadline(), Instant::Never());
  ASSERT_EQ(sends_.size(), 2u);
  EXPECT_EQ(sends_[1].call.attempt, 1u);
  sends_.erase(sends_.begin());
  RunStep();
  EXPECT_EQ(TokensOf(Key("a")).size(), 1u);
}

TEST_F(DecodeFfnLoss, AfterMaxFfnWaitItsSequencesAreUnavailable) {
  WithFfn();
  Run("a");
  Attend();
  Lose("f");
  machine_->OnTime(now_ + Duration::Seconds(9));
  EXPECT_EQ(machine_->sequences(), 1u);
  machine_->OnTime(now_ + config_.max_ffn_wait);
  Collect();
  EXPECT_EQ(EndOf(Key("a")).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(book_->free_blocks(), 64u);
  EXPECT_EQ(machine_->NextDeadline(), Instant::Never());
}

TEST_F(DecodeFfnLoss, NoStepStartsWithoutAHolderAndEachSequenceWaitsItsOwnTime) {
  Run("a");
  EXPECT_FALSE(machine_->HasTask());
  EXPECT_FALSE(machine_->NextTask(now_).has_value());
  const Instant first = now_ + config_.max_ffn_wait;
  now_ = now_ + Duration::Seconds(4);
  Run("b");
  EXPECT_EQ(machine_->NextDeadline(), first);
  machine_->OnTime(first);
  Collect();
  EXPECT_EQ(EndOf(Key("a")).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(machine_->sequences(), 1u);
  EXPECT_EQ(machine_->NextDeadline(), now_ + config_.max_ffn_wait);
}

TEST_F(DecodeFfnLoss, AGroupChangeKeepsCallsInFlightWhereTheyAre) {
  CallAtF1();
  machine_->SetGroup(WholeHolders({"f2"}), now_);
  Collect();
  EXPECT_EQ(sends_.size(), 1u);
  EXPECT_TRUE(suspected_.empty());
  EXPECT_TRUE(Reply(sends_[0]));
  Attend();
  EXPECT_EQ(sends_.back().holder, "f2");
}

TEST_F(DecodeFfnLoss, AnEmptyGroupWaits) {
  CallAtF1();
  machine_->SetGroup({}, now_);
  EXPECT_TRUE(Reply(sends_[0]));
  Attend();
  EXPECT_EQ(sends_.size(), 1u);
  machine_->SetGroup(WholeHolders({"f2"}), now_);
  Collect();
  EXPECT_EQ(sends_.back().holder, "f2");
}

TEST_F(DecodeFfnLoss, ARefusedCallGoesToAnotherHolderAndTheStreamStaysOpen) {
  CallAtF1();
  EXPECT_TRUE(
      machine_->OnFfnRefused("f1", sends_[0].call, absl::ResourceExhaustedError("full"), now_));
  Collect();
  ASSERT_EQ(sends_.size(), 2u);
  EXPECT_EQ(sends_[1].holder, "f2");
  EXPECT_TRUE(suspected_.empty());
  EXPECT_TRUE(Reply(sends_[1]));
  Attend();
  EXPECT_EQ(sends_.back().holder, "f1");  // the next layer's call
}

TEST_F(DecodeFfnLoss, CreditOfALostStreamIsForgotten) {
  machine_->SetGroup(WholeHolders({"f"}), now_);
  Up("f", 1);
  Run("a");
  for (int i = 0; i < 5; i++) {
    sends_.clear();
    RunStep();
    Attend();
    ASSERT_EQ(sends_.size(), 1u);
    Lose("f");
    Up("f", 1);
    ASSERT_EQ(sends_.size(), 2u) << i;
    sends_.erase(sends_.begin());
    Reply(sends_[0]);
  }
}

TEST_F(DecodeFfnLoss, MicroBatchesFitTheSmallestHolderOfTheGroup) {
  machine_->SetGroup(WholeHolders({"big", "small"}), now_);
  Up("big", 8);
  Up("small", 1);
  for (const char* name : {"a", "b", "c"}) Run(name);
  EXPECT_EQ(Attend().rows.size(), 1u);
  Lose("big");
  EXPECT_EQ(sends_.back().holder, "small");
}

}  // namespace
}  // namespace tandem::step
