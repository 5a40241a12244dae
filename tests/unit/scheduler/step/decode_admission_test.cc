// Admission, reservations and attempts of the decode machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "scheduler/step/sequence_table.h"
#include "tests/unit/scheduler/step/decode_fixture.h"

namespace tandem::step {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DecodeAdmission : public DecodeFixture {};

TEST_F(DecodeAdmission, WhatCanNeverFitIsInvalidAndNamesBothNumbers) {
  const absl::Status context = Admit(Request("r", 40, 30));
  EXPECT_EQ(context.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(context.message()),
              testing::AllOf(HasSubstr("40"), HasSubstr("30"), HasSubstr("64")));
  Make(8);  // 32 tokens
  const absl::Status kv = Admit(Request("r", 30, 3));
  EXPECT_EQ(kv.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(kv.message()),
              testing::AllOf(HasSubstr("30"), HasSubstr("3"), HasSubstr("32")));
  EXPECT_EQ(Admit(Request("r", 9, 20, 4)).code(),
            absl::StatusCode::kInvalidArgument);  // 4 blocks, 2 more a choice
  EXPECT_EQ(book_->free_blocks(), 8u);
  EXPECT_TRUE(Admit(Request("r", 29, 3)).ok());
}

TEST_F(DecodeAdmission, BadRequestsAreInvalid) {
  EXPECT_EQ(Admit(Request("r", 0, 4)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Admit(Request("r", 4, 0)).code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Admit(Request("r", 4, 4, 0)).code(), absl::StatusCode::kInvalidArgument);
  DecodeRequest twice = Request("r", 4, 4, 2);
  twice.choices[1].choice = 0;
  EXPECT_EQ(Admit(twice).code(), absl::StatusCode::kInvalidArgument);
  DecodeRequest resumes = Request("r", 4, 4, 2);
  resumes.choices[1].emitted_ids = {1};
  EXPECT_EQ(Admit(resumes).code(), absl::StatusCode::kInvalidArgument);
  DecodeRequest finished = Request("r", 4, 2);
  finished.choices[0].emitted_ids = {1, 2};
  EXPECT_EQ(Admit(finished).code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(DecodeAdmission, ReservesPromptAndOneBlockAndRefusesPastIt) {
  Make(8);
  ASSERT_TRUE(Admit(Request("a", 9, 20)).ok());  // 9 tokens: 3 blocks, and one
  EXPECT_EQ(book_->free_blocks(), 4u);
  ASSERT_TRUE(Admit(Request("b", 9, 20)).ok());
  EXPECT_EQ(Admit(Request("c", 1, 1)).code(), absl::StatusCode::kResourceExhausted);
  machine_->Release(ReservationId("a/0"), EndReason::kCancelled, now_);
  EXPECT_EQ(book_->free_blocks(), 4u);
  EXPECT_TRUE(Admit(Request("c", 1, 1)).ok());
}

TEST_F(DecodeAdmission, MaxSequencesIsABound) {
  config_.max_sequences = 2;
  Make(64);
  EXPECT_TRUE(Admit(Request("a", 3, 3, 2)).ok());
  EXPECT_EQ(Admit(Request("b", 3, 3)).code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(machine_->sequences(), 2u);
}

TEST_F(DecodeAdmission, OneIdPromptStartsAtOnce) {
  WithFfn();
  Run("a");
  EXPECT_THAT(started_, ElementsAre(Key("a")));
  EXPECT_TRUE(machine_->HasTask());
  const AttentionTask task = Attend();
  ASSERT_EQ(task.rows.size(), 1u);
  EXPECT_EQ(task.rows[0].token, 100u);
  EXPECT_EQ(task.rows[0].position, 0u);
}

TEST_F(DecodeAdmission, StartsWhenEveryRowOfEveryLayerIsThereAndFeedsTheLastPromptId) {
  WithFfn();
  const DecodeRequest request = Request("a", 6, 4);
  ASSERT_TRUE(Admit(request).ok());
  ASSERT_TRUE(machine_->KvDestination(request.reservation, 0, 0, 0, 3).ok());
  EXPECT_EQ(machine_->OnKvRows(request.reservation, 0, 0, 3, now_), 3u);
  EXPECT_EQ(machine_->OnKvRows(request.reservation, 1, 0, 5, now_), 5u);
  EXPECT_FALSE(machine_->HasTask());
  EXPECT_EQ(machine_->OnKvRows(request.reservation, 0, 2, 3, now_),
            5u);  // an overlap is written again
  Collect();
  EXPECT_THAT(started_, ElementsAre(Key("a")));
  const AttentionTask task = Attend();
  EXPECT_EQ(task.rows[0].token, 105u);
  EXPECT_EQ(task.rows[0].position, 5u);
  EXPECT_TRUE(absl::IsNotFound(machine_->KvDestination(request.reservation, 0, 0, 0, 1).status()));
}

TEST_F(DecodeAdmission, AResumeFeedsTheLastEmittedIdAndGoesOnAtItsPosition) {
  WithFfn();
  DecodeRequest request = Request("a", 3, 8, 1, 1);
  request.choices[0].emitted_ids = {41, 42};
  request.local_prefill = true;
  ASSERT_TRUE(Admit(request).ok());
  ASSERT_EQ(local_prefills_.size(), 1u);
  EXPECT_THAT(local_prefills_[0].ids, ElementsAre(100, 101, 102, 41, 42));
  machine_->OnLocalPrefillDone(request.reservation, now_);
  const AttentionTask task = Attend();
  EXPECT_EQ(task.rows[0].token, 42u);
  EXPECT_EQ(task.rows[0].position, 4u);
  RunStep();
  ASSERT_EQ(emits_.size(), 1u);
  EXPECT_EQ(emits_[0].position, 2u);
}

TEST_F(DecodeAdmission, FramesWithAGapOutOfRangeOrOfAnotherAttemptAreRefused) {
  const DecodeRequest request = Request("a", 6, 4);
  ASSERT_TRUE(Admit(request).ok());
  const ReservationId& id = request.reservation;
  EXPECT_TRUE(absl::IsInvalidArgument(machine_->KvDestination(id, 0, 0, 1, 2).status()));  // gap
  EXPECT_TRUE(absl::IsInvalidArgument(
      machine_->KvDestination(id, 0, 0, 0, 6).status()));  // the last id has no row
  EXPECT_TRUE(absl::IsInvalidArgument(machine_->KvDestination(id, 0, 2, 0, 1).status()));  // layer
  EXPECT_TRUE(absl::IsInvalidArgument(machine_->KvDestination(id, 0, 0, 0, 0).status()));
  EXPECT_TRUE(absl::IsNotFound(machine_->KvDestination(id, 1, 0, 0, 1).status()));
  EXPECT_TRUE(absl::IsNotFound(machine_->KvDestination(ReservationId("x"), 0, 0, 0, 1).status()));
}

TEST_F(DecodeAdmission, ChoicesShareFullPromptBlocksAndCopyThePartialOne) {
  WithFfn();
  DecodeRequest request = Request("a", 7, 8, 3);  // 6 rows: a full block and half of one
  ASSERT_TRUE(Admit(request).ok());
  EXPECT_EQ(book_->free_blocks(),
            64u - 3 - 2 - 2);  // 7 tokens and a block; each other choice all but the shared one
  FillKv(request, 6);
  EXPECT_EQ(book_->free_blocks(), 64u - 3 - 2 - 2);
  ASSERT_EQ(copies_.size(), 2u);
  EXPECT_THAT(started_, ElementsAre(Key("a", 0), Key("a", 1), Key("a", 2)));
  std::vector<BlockTable> tables;
  for (int i = 0; i < 2; i++) {
    for (const KvRow& row : Attend().rows) tables.push_back(*row.blocks);
  }
  ASSERT_EQ(tables.size(), 3u);
  for (size_t i = 1; i < 3; i++) {
    EXPECT_EQ(tables[i][0], tables[0][0]);
    EXPECT_NE(tables[i][1], tables[0][1]);
    EXPECT_EQ(copies_[i - 1].from, tables[0][1]);
    EXPECT_EQ(copies_[i - 1].to, tables[i][1]);
  }
  machine_->EndAll({EndReason::kCancelled, absl::OkStatus()}, now_);
  for (const SendA2f& send : std::exchange(sends_, {})) Reply(send);
  EXPECT_EQ(book_->free_blocks(), 64u);
}

TEST_F(DecodeAdmission, StopWhileReservedFreesAtOnceAndTheLastChoiceFreesTheReservation) {
  const DecodeRequest request = Request("a", 7, 8, 2);
  ASSERT_TRUE(Admit(request).ok());
  machine_->Stop(Key("a", 0), 0, EndReason::kCancelled, now_);
  Collect();
  EXPECT_EQ(EndOf(Key("a", 0)).reason, EndReason::kCancelled);
  EXPECT_EQ(book_->free_blocks(), 64u - 3);
  EXPECT_TRUE(freed_.empty());
  machine_->Stop(Key("a", 1), 0, EndReason::kCancelled, now_);
  Collect();
  EXPECT_EQ(book_->free_blocks(), 64u);
  ASSERT_EQ(freed_.size(), 1u);
  EXPECT_FALSE(freed_[0].local_prefill);
  EXPECT_TRUE(absl::IsNotFound(machine_->KvDestination(request.reservation, 0, 0, 0, 1).status()));
}

TEST_F(DecodeAdmission, TheChoiceThatIsLeftTakesThePrompt) {
  WithFfn();
  const DecodeRequest request = Request("a", 7, 8, 2);
  ASSERT_TRUE(Admit(request).ok());
  machine_->Stop(Key("a", 0), 0, EndReason::kCancelled, now_);
  FillKv(request, 6);
  EXPECT_THAT(started_, ElementsAre(Key("a", 1)));
  EXPECT_TRUE(copies_.empty());
  EXPECT_EQ(book_->free_blocks(), 64u - 3);
}

TEST_F(DecodeAdmission, BlocksOfACancelledLocalPrefillAreKeptUntilItHasEnded) {
  DecodeRequest request = Request("a", 7, 8);
  request.local_prefill = true;
  ASSERT_TRUE(Admit(request).ok());
  machine_->Stop(Key("a"), 0, EndReason::kCancelled, now_);
  Collect();
  ASSERT_EQ(freed_.size(), 1u);
  EXPECT_TRUE(freed_[0].local_prefill);
  EXPECT_EQ(book_->free_blocks(), 64u - 3);
  machine_->OnLocalPrefillFailed(request.reservation, absl::CancelledError(""), now_);
  EXPECT_EQ(book_->free_blocks(), 64u);
  EXPECT_EQ(machine_->sequences(), 0u);
}

TEST_F(DecodeAdmission, AFailedLocalPrefillFailsItsChoices) {
  DecodeRequest request = Request("a", 7, 8, 2);
  request.local_prefill = true;
  ASSERT_TRUE(Admit(request).ok());
  machine_->OnLocalPrefillFailed(request.reservation, absl::InternalError("device"), now_);
  Collect();
  EXPECT_EQ(EndOf(Key("a", 0)).status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(EndOf(Key("a", 1)).status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(book_->free_blocks(), 64u);
  EXPECT_TRUE(freed_.empty());
}

TEST_F(DecodeAdmission, AHigherAttemptSupersedesALowerOne) {
  WithFfn();
  Run("a");
  ASSERT_TRUE(Admit(Request("a", 1, 8, 1, 2)).ok());
  EXPECT_EQ(EndOf(Key("a", 0, 0)).reason, EndReason::kSuperseded);
  EXPECT_THAT(machine_->live(), ElementsAre(Key("a", 0, 2)));
  EXPECT_EQ(Admit(Request("a", 1, 8, 1, 1)).code(), absl::StatusCode::kFailedPrecondition);
  DecodeRequest same = Request("a", 1, 8, 1, 2);
  same.reservation = ReservationId("other");
  EXPECT_EQ(Admit(same).code(), absl::StatusCode::kAlreadyExists);
}

TEST_F(DecodeAdmission, AttemptsThatEndedAreFenced) {
  Run("a");
  machine_->Stop(Key("a"), 0, EndReason::kCancelled, now_);
  EXPECT_EQ(Admit(Request("a", 1, 8)).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(Admit(Request("a", 1, 8, 1, 2)).ok());
  machine_->Stop(Key("a", 0, 2), 0, EndReason::kCancelled, now_);
  EXPECT_EQ(Admit(Request("a", 1, 8, 1, 1)).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(DecodeAdmission, FencesAreBoundedAndForgetTheOldest) {
  for (size_t i = 0; i <= kMaxFences; i++) {
    Run(absl::StrCat("r", i));
    machine_->Stop(Key(absl::StrCat("r", i)), 0, EndReason::kCancelled, now_);
  }
  EXPECT_EQ(Admit(Request("r1", 1, 8)).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(Admit(Request("r0", 1, 8)).ok());
}

TEST_F(DecodeAdmission, AReleasedReservationMayComeAgainUnderTheSameAttempt) {
  const DecodeRequest request = Request("a", 7, 8);
  ASSERT_TRUE(Admit(request).ok());
  machine_->Release(request.reservation, EndReason::kSuperseded, now_);
  EXPECT_TRUE(Admit(request).ok());
}

TEST_F(DecodeAdmission, AReservationWithoutFramesEndsWithItsLeaseAndFramesRenewIt) {
  DecodeRequest request = Request("a", 7, 8);
  request.lease = Duration::Seconds(5);
  ASSERT_TRUE(Admit(request).ok());
  const Instant first = now_ + Duration::Seconds(5);
  EXPECT_EQ(machine_->NextDeadline(), first);
  now_ = now_ + Duration::Seconds(3);
  machine_->OnKvRows(request.reservation, 0, 0, 2, now_);
  EXPECT_EQ(machine_->NextDeadline(), now_ + Duration::Seconds(5));
  machine_->OnTime(first);
  EXPECT_EQ(machine_->sequences(), 1u);
  machine_->OnTime(now_ + Duration::Seconds(5));
  Collect();
  EXPECT_EQ(EndOf(Key("a")).reason, EndReason::kFailed);
  EXPECT_EQ(EndOf(Key("a")).status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(book_->free_blocks(), 64u);
  EXPECT_EQ(machine_->NextDeadline(), Instant::Never());
}

TEST_F(DecodeAdmission, EndAllOfEndsTheSequencesOfThatGatewayOnly) {
  Run("a");
  DecodeRequest other = Request("b", 1, 8);
  other.gateway = GatewayId("h");
  ASSERT_TRUE(Admit(other).ok());
  machine_->EndAllOf(GatewayId("g"),
                     {EndReason::kFailed, absl::UnavailableError("gateway_overloaded")}, now_);
  Collect();
  EXPECT_EQ(EndOf(Key("a")).status.message(), "gateway_overloaded");
  EXPECT_THAT(machine_->live(), ElementsAre(Key("b")));
}

}  // namespace
}  // namespace tandem::step
