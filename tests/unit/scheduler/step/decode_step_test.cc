// The running step of the decode machine: micro-batches, credits, tokens, preemption.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/step/decode_fixture.h"

namespace tandem::step {
namespace {

using ::testing::ElementsAre;

class DecodeStep : public DecodeFixture {};

TEST_F(DecodeStep, TwoMicroBatchesAreInFlightWhenTheBatchAllows) {
  WithFfn();
  for (const char* name : {"a", "b", "c"}) Run(name);
  EXPECT_EQ(Attend().micro_batch, 0u);
  EXPECT_EQ(Attend().micro_batch, 1u);  // while the first waits for its FFN
  ASSERT_EQ(sends_.size(), 2u);
  EXPECT_EQ(sends_[0].rows + sends_[1].rows, 3u);
  EXPECT_FALSE(machine_->HasTask());
  EXPECT_TRUE(machine_->waits_for_ffn());
}

TEST_F(DecodeStep, OneRowOrOneAllowedIsOneMicroBatch) {
  WithFfn();
  Run("a");
  EXPECT_EQ(Attend().rows.size(), 1u);
  config_.max_micro_batches = 1;
  Make(64);
  sends_.clear();
  machine_->SetGroup(WholeHolders({"loopback"}), now_);
  machine_->OnHolderUp("loopback", UINT64_MAX, UINT32_MAX, now_);
  for (const char* name : {"a", "b", "c"}) Run(name);
  EXPECT_EQ(Attend().rows.size(), 3u);
  ASSERT_EQ(sends_.size(), 1u);
}

TEST_F(DecodeStep, TheMicroBatchWhoseReplyCameFirstIsServedFirst) {
  WithFfn();
  for (const char* name : {"a", "b"}) Run(name);
  Attend();
  Attend();
  const std::vector<SendA2f> calls = std::exchange(sends_, {});
  EXPECT_TRUE(Reply(calls[1]));
  EXPECT_TRUE(Reply(calls[0]));
  const AttentionTask first = Attend();
  EXPECT_EQ(first.micro_batch, 1u);
  EXPECT_EQ(first.layer, 1u);
  EXPECT_EQ(Attend().micro_batch, 0u);
}

TEST_F(DecodeStep, RowsPastTheHoldersCallsWaitTheirTurn) {
  machine_->SetGroup(WholeHolders({"f"}), now_);
  machine_->OnHolderUp("f", 2 * 2 * kHiddenBytes, 2, now_);  // calls of 2 rows
  for (const char* name : {"a", "b", "c", "d", "e", "f", "g"}) Run(name);
  std::set<uint32_t> seen;
  EXPECT_LE(Attend().rows.size(), 2u);
  EXPECT_LE(Attend().rows.size(), 2u);
  EXPECT_FALSE(machine_->HasTask());  // 2 are in flight; 2 more are queued
  size_t tasks = 0;
  while (emits_.empty()) {
    for (const SendA2f& send : std::exchange(sends_, {})) {
      EXPECT_LE(send.rows, 2u);
      seen.insert(send.call.micro_batch);
      Reply(send);
    }
    std::optional<DecodeTask> task = machine_->NextTask(now_);
    ASSERT_TRUE(task.has_value()) << "stuck after " << tasks << " tasks";
    tasks++;
    if (auto* attention = std::get_if<AttentionTask>(&*task))
      machine_->OnAttentionDone(*attention, now_);
    if (auto* head = std::get_if<HeadTask>(&*task)) {
      machine_->OnHeadDone(*head, std::vector<SampledToken>(head->rows.size()), now_);
    }
    Collect();
  }
  EXPECT_EQ(seen.size(), 4u);
  EXPECT_EQ(emits_.size(), 7u);
}

TEST_F(DecodeStep, ACallWaitsForCreditAndIsSentWhenAReplyGivesItBack) {
  machine_->SetGroup(WholeHolders({"f"}), now_);
  machine_->OnHolderUp("f", 2 * kHiddenBytes, 2,
                       now_);  // one call of 2 rows, not the two that F should grant
  for (const char* name : {"a", "b", "c", "d"}) Run(name);
  Attend();
  Attend();
  ASSERT_EQ(sends_.size(), 1u);
  EXPECT_TRUE(machine_->waits_for_ffn());
  EXPECT_TRUE(Reply(sends_[0]));
  ASSERT_EQ(sends_.size(), 2u);
  EXPECT_EQ(sends_[1].call.micro_batch, 1u);
}

TEST_F(DecodeStep, TokensAreEmittedWhenTheWholeStepIsDoneInAdmissionOrder) {
  WithFfn();
  for (const char* name : {"b", "a"}) Run(name);
  for (int layer = 0; layer < 2; layer++) {
    Attend();
    Attend();
    for (const SendA2f& send : std::exchange(sends_, {})) Reply(send);
  }
  Draw(11);
  EXPECT_TRUE(emits_.empty());
  Draw(12);
  ASSERT_EQ(emits_.size(), 2u);
  EXPECT_EQ(emits_[0].sequence, Key("b"));
  EXPECT_EQ(emits_[1].sequence, Key("a"));
  EXPECT_EQ(emits_[0].position, 0u);
  EXPECT_EQ(emits_[0].token->id, 11u);
  EXPECT_EQ(emits_[1].token->id, 12u);
}

TEST_F(DecodeStep, SequencesJoinAndLeaveBetweenSteps) {
  WithFfn();
  Run("a", 2);
  Attend();
  Run("b");  // joins the next step, not this one
  RunStep();
  EXPECT_TRUE(TokensOf(Key("b")).empty());
  RunStep();
  EXPECT_EQ(TokensOf(Key("a")).size(), 2u);
  EXPECT_EQ(TokensOf(Key("b")).size(), 1u);
  EXPECT_EQ(EndOf(Key("a")).reason, EndReason::kLength);
  RunStep();
  EXPECT_EQ(TokensOf(Key("a")).size(), 2u);
  EXPECT_EQ(TokensOf(Key("b")).size(), 2u);
}

TEST_F(DecodeStep, TheBatchTakesTheOldestSequencesFirst) {
  config_.max_batch = 2;
  Make(64);
  WithFfn();
  for (const char* name : {"c", "b", "a"}) Run(name);
  RunStep();
  EXPECT_EQ(TokensOf(Key("c")).size(), 1u);
  EXPECT_EQ(TokensOf(Key("b")).size(), 1u);
  EXPECT_TRUE(TokensOf(Key("a")).empty());
}

TEST_F(DecodeStep, TheEndTokenIsEmittedTogetherWithTheEnd) {
  WithFfn();
  Run("a");
  RunStep(99);
  ASSERT_EQ(emits_.size(), 1u);
  EXPECT_EQ(emits_[0].token->id, 99u);
  EXPECT_EQ(emits_[0].position, 0u);
  EXPECT_EQ(emits_[0].end->reason, EndReason::kEos);
  EXPECT_EQ(book_->free_blocks(), 64u);
  EXPECT_EQ(machine_->tokens_total(), 1u);
}

// Of three choices and a resumed attempt, the account shows what one client sent, once.
TEST_F(DecodeStep, APromptIsCountedOnceWithItsFirstToken) {
  WithFfn();
  DecodeRequest request = Request("a", 3, 4, /*choices=*/3);
  ASSERT_TRUE(Admit(request).ok());
  FillKv(request, 2);
  EXPECT_EQ(machine_->prompts_total(), 0u);
  RunStep();
  EXPECT_EQ(machine_->tokens_total(), 3u);
  EXPECT_EQ(machine_->prompts_total(), 1u);
  EXPECT_EQ(machine_->prompt_tokens_total(), 3u);
  RunStep();
  DecodeRequest resumed = Request("b", 1, 8, 1, /*attempt=*/1);
  resumed.choices[0].emitted_ids = {5};
  ASSERT_TRUE(Admit(resumed).ok());
  FillKv(resumed, 1);
  RunStep();
  EXPECT_EQ(machine_->prompts_total(), 1u);
  EXPECT_EQ(machine_->prompt_tokens_total(), 3u);
}

TEST_F(DecodeStep, IgnoreEosGoesOnAndStopTokensEnd) {
  WithFfn();
  DecodeRequest request = Request("a", 1, 8);
  request.stop.ignore_eos = true;
  request.stop.stop_token_ids = {7};
  ASSERT_TRUE(Admit(request).ok());
  RunStep(99);
  RunStep(7);
  EXPECT_THAT(TokensOf(Key("a")), ElementsAre(99, 7));
  EXPECT_EQ(EndOf(Key("a")).reason, EndReason::kStopToken);
}

TEST_F(DecodeStep, AStopDuringAStepDropsItsTokenAndFreesAfterIt) {
  config_.max_micro_batches = 1;  // b's row keeps the micro-batch going
  Make(64);
  WithFfn();
  for (const char* name : {"a", "b"}) Run(name);
  RunStep();
  emits_.clear();
  Attend();
  const uint32_t held = 64 - book_->free_blocks();
  machine_->Stop(Key("a"), 1, EndReason::kStopped, now_);
  EXPECT_EQ(64 - book_->free_blocks(), held);
  RunStep();
  EXPECT_TRUE(TokensOf(Key("a")).empty());
  EXPECT_EQ(EndOf(Key("a")).reason, EndReason::kStopped);
  EXPECT_EQ(TokensOf(Key("b")).size(), 1u);
  EXPECT_EQ(machine_->tokens_wasted(), 1u);
  EXPECT_LT(64 - book_->free_blocks(), held);
}

TEST_F(DecodeStep, TokensThatWereSentPastAStopAreWasted) {
  WithFfn();
  Run("a");
  for (int i = 0; i < 3; i++) RunStep();
  machine_->Stop(Key("a"), 1, EndReason::kStopped, now_);
  EXPECT_EQ(machine_->tokens_wasted(), 2u);
  EXPECT_EQ(book_->free_blocks(), 64u);
  machine_->Stop(Key("a"), 1, EndReason::kStopped, now_);  // unknown by now
  EXPECT_EQ(machine_->tokens_wasted(), 2u);
}

TEST_F(DecodeStep, AStepThatNobodyWantsAnyMoreEndsWithoutAnFfn) {
  WithFfn();
  Run("a");
  machine_->OnHolderLost("f", absl::UnavailableError("gone"), now_);
  machine_->OnHolderUp("f", 256, 8, now_);
  Attend();
  machine_->OnHolderLost("f", absl::UnavailableError("gone"), now_);
  machine_->Stop(Key("a"), 0, EndReason::kCancelled, now_);
  Collect();
  EXPECT_EQ(EndOf(Key("a")).reason, EndReason::kCancelled);
  EXPECT_EQ(book_->free_blocks(), 64u);
}

TEST_F(DecodeStep, OutOfKvEndsTheNewestAndNeverTheOldest) {
  Make(4);
  WithFfn();
  for (const char* name : {"a", "b"}) Run(name, 15);  // each reserves 2 blocks: positions 0 to 7
  for (int i = 0; i < 9; i++) RunStep();
  EXPECT_EQ(EndOf(Key("b")).reason, EndReason::kPreempted);
  EXPECT_EQ(TokensOf(Key("b")).size(), 8u);
  EXPECT_EQ(emits_[16].position, 8u);  // what b has emitted: where its next attempt goes on
  for (int i = 0; i < 9; i++) RunStep();
  EXPECT_EQ(EndOf(Key("a")).reason, EndReason::kLength);
  EXPECT_EQ(TokensOf(Key("a")).size(), 15u);
  EXPECT_EQ(book_->free_blocks(), 4u);
}

TEST_F(DecodeStep, AReservedSequenceIsPreemptedBeforeAnOlderRunningOne) {
  Make(6);
  WithFfn();
  Run("a", 20);
  ASSERT_TRUE(Admit(Request("r", 9, 8)).ok());  // 4 blocks, waits for its prompt
  for (int i = 0; i < 9; i++) RunStep();
  EXPECT_EQ(EndOf(Key("r")).reason, EndReason::kPreempted);
  ASSERT_EQ(freed_.size(), 1u);
  EXPECT_GE(TokensOf(Key("a")).size(), 8u);
}

TEST_F(DecodeStep, BlocksThatAreComingFreeEndNobody) {
  Make(6);
  WithFfn();
  Run("a", 20);
  DecodeRequest request = Request("r", 9, 8);
  request.local_prefill = true;
  ASSERT_TRUE(Admit(request).ok());
  machine_->Stop(Key("r"), 0, EndReason::kCancelled, now_);
  Collect();
  for (int i = 0; i < 8; i++) RunStep();
  EXPECT_EQ(TokensOf(Key("a")).size(), 8u);
  EXPECT_FALSE(machine_->NextTask(now_).has_value());
  EXPECT_FALSE(machine_->HasTask());
  machine_->OnLocalPrefillFailed(request.reservation, absl::CancelledError(""), now_);
  EXPECT_TRUE(machine_->HasTask());
  RunStep();
  EXPECT_EQ(TokensOf(Key("a")).size(), 9u);
}

TEST_F(DecodeStep, AFailedTaskFailsItsRowsAndNoOthers) {
  WithFfn();
  for (const char* name : {"a", "b"}) Run(name);
  const std::optional<DecodeTask> task = machine_->NextTask(now_);
  machine_->OnTaskFailed(*task, absl::InternalError("device"), now_);
  RunStep();
  EXPECT_EQ(EndOf(Key("a")).status.code(), absl::StatusCode::kInternal);
  EXPECT_EQ(TokensOf(Key("b")).size(), 1u);
}

TEST_F(DecodeStep, HeadRowsSayWhatSamplingNeeds) {
  WithFfn();
  DecodeRequest request = Request("a", 1, 8);
  request.sampling.temperature = 0.5f;
  ASSERT_TRUE(Admit(request).ok());
  RunStep(21);
  for (int layer = 0; layer < 2; layer++) {
    Attend();
    for (const SendA2f& send : std::exchange(sends_, {})) Reply(send);
  }
  const std::optional<DecodeTask> task = machine_->NextTask(now_);
  const SampleRow& row = std::get<HeadTask>(*task).rows.at(0);
  EXPECT_EQ(row.sampling->temperature, 0.5f);
  EXPECT_EQ(row.seed, 7u);
  EXPECT_EQ(row.output_position, 1u);
  EXPECT_THAT(*row.prompt_ids, ElementsAre(100));
  EXPECT_THAT(*row.emitted_ids, ElementsAre(21));
}

}  // namespace
}  // namespace tandem::step
