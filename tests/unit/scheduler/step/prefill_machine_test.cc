#include "scheduler/step/prefill_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tandem::step {
namespace {

class PrefillMachineTest : public ::testing::Test {
 protected:
  PrefillMachineTest() {
    config_.layers = 2;
    config_.chunk_tokens = 4;
    config_.max_jobs = 3;
    config_.kv_row_bytes = 10;
    config_.send_window_bytes = 1000;
    Make();
  }
  void Make() { machine_ = std::make_unique<PrefillMachine>(config_, book_); }

  static PrefillJob Job(const std::string& name, size_t ids) {
    PrefillJob job{ReservationId(name), {RequestId(name), 0, 0}, {}, nullptr};
    for (size_t i = 0; i < ids; i++) job.ids.push_back(static_cast<TokenId>(100 + i));
    return job;
  }
  void Collect() {
    for (PrefillEffect& effect : machine_->TakeEffects()) {
      if (auto* push = std::get_if<PushKv>(&effect)) pushes_.push_back(*push);
      if (auto* done = std::get_if<PrefillDone>(&effect))
        done_.push_back(done->reservation.value());
      if (auto* failed = std::get_if<PrefillFailed>(&effect)) failed_.push_back(failed->status);
      if (auto* cancel = std::get_if<CancelPush>(&effect))
        cancelled_.push_back(cancel->reservation.value());
    }
  }
  // Computes up to `tasks` tasks.
  std::vector<PrefillTask> Compute(size_t tasks = 100) {
    std::vector<PrefillTask> computed;
    while (computed.size() < tasks && machine_->HasWork()) {
      computed.push_back(*machine_->NextTask());
      machine_->OnTaskDone(computed.back());
      Collect();
    }
    return computed;
  }
  void AckAll(const std::string& name, uint32_t rows) {
    for (uint32_t layer = 0; layer < config_.layers; layer++)
      machine_->OnAck(ReservationId(name), layer, rows);
    Collect();
  }

  PrefillConfig config_;
  KvBook book_{16, 4};
  std::unique_ptr<PrefillMachine> machine_;
  std::vector<PushKv> pushes_;
  std::vector<std::string> done_, cancelled_;
  std::vector<absl::Status> failed_;
};

TEST_F(PrefillMachineTest, ComputesAllIdsButTheLastChunkByChunkLayerByLayer) {
  ASSERT_TRUE(machine_->Enqueue(Job("a", 7)).ok());
  const std::vector<PrefillTask> tasks = Compute();
  ASSERT_EQ(tasks.size(), 4u);
  const uint32_t expected[][3] = {
      {0, 0, 4}, {1, 0, 4}, {0, 4, 2}, {1, 4, 2}};  // layer, first, rows
  for (size_t i = 0; i < 4; i++) {
    EXPECT_EQ(tasks[i].layer, expected[i][0]);
    EXPECT_EQ(tasks[i].first_position, expected[i][1]);
    ASSERT_EQ(tasks[i].rows.size(), expected[i][2]);
    for (uint32_t row = 0; row < tasks[i].rows.size(); row++) {
      EXPECT_EQ(tasks[i].rows[row].position, expected[i][1] + row);
      EXPECT_EQ(tasks[i].rows[row].token, 100 + expected[i][1] + row);
    }
    EXPECT_EQ(pushes_[i].layer, expected[i][0]);
    EXPECT_EQ(pushes_[i].first_position, expected[i][1]);
    EXPECT_EQ(pushes_[i].count, expected[i][2]);
  }
}

TEST_F(PrefillMachineTest, KvIsHeldUntilEveryRowIsAcknowledged) {
  ASSERT_TRUE(machine_->Enqueue(Job("a", 7)).ok());
  Compute();
  machine_->OnAck(ReservationId("a"), 0, 6);
  machine_->OnAck(ReservationId("a"), 1, 4);
  Collect();
  EXPECT_TRUE(done_.empty());
  EXPECT_EQ(book_.free_blocks(), 14u);
  machine_->OnAck(ReservationId("a"), 1, 6);
  Collect();
  EXPECT_THAT(done_, testing::ElementsAre("a"));
  EXPECT_EQ(book_.free_blocks(), 16u);
  EXPECT_EQ(machine_->jobs(), 0u);
  machine_->OnAck(ReservationId("a"), 1, 6);  // late: ignored
}

TEST_F(PrefillMachineTest, TheWindowBoundsBytesInFlightAndNotComputing) {
  config_.send_window_bytes = 80;  // two chunks' rows of one layer
  Make();
  ASSERT_TRUE(machine_->Enqueue(Job("a", 9)).ok());
  EXPECT_EQ(Compute().size(), 4u);
  EXPECT_EQ(pushes_.size(), 2u);
  machine_->OnAck(ReservationId("a"), 0, 4);
  Collect();
  EXPECT_EQ(pushes_.size(), 3u);
  machine_->OnAck(ReservationId("a"), 0, 4);  // twice: no more room for it
  Collect();
  EXPECT_EQ(pushes_.size(), 3u);
  machine_->OnAck(ReservationId("a"), 1, 100);  // more than was pushed cannot be there
  Collect();
  EXPECT_EQ(pushes_.size(), 4u);
  AckAll("a", 8);
  EXPECT_THAT(done_, testing::ElementsAre("a"));
}

TEST_F(PrefillMachineTest, AFrameLargerThanTheWindowGoesAlone) {
  config_.send_window_bytes = 5;
  Make();
  ASSERT_TRUE(machine_->Enqueue(Job("a", 5)).ok());
  Compute();
  EXPECT_EQ(pushes_.size(), 1u);
  machine_->OnAck(ReservationId("a"), 0, 4);
  Collect();
  EXPECT_EQ(pushes_.size(), 2u);
}

TEST_F(PrefillMachineTest, ALocalJobBorrowsItsBlocksAndPushesNothing) {
  const BlockTable blocks = {7, 8};
  PrefillJob job = Job("a", 7);
  job.local_blocks = &blocks;
  ASSERT_TRUE(machine_->Enqueue(job).ok());
  EXPECT_EQ(book_.free_blocks(), 16u);
  for (const PrefillTask& task : Compute()) EXPECT_EQ(task.rows[0].blocks, &blocks);
  EXPECT_TRUE(pushes_.empty());
  EXPECT_THAT(done_, testing::ElementsAre("a"));
}

TEST_F(PrefillMachineTest, TheNextPromptComputesWhileTheFirstWaitsForAcknowledgements) {
  ASSERT_TRUE(machine_->Enqueue(Job("a", 5)).ok());
  ASSERT_TRUE(machine_->Enqueue(Job("b", 5)).ok());
  const std::vector<PrefillTask> tasks = Compute();
  ASSERT_EQ(tasks.size(), 4u);
  EXPECT_EQ(tasks[1].reservation.value(), "a");
  EXPECT_EQ(tasks[2].reservation.value(), "b");
  AckAll("b", 4);
  AckAll("a", 4);
  EXPECT_THAT(done_, testing::ElementsAre("b", "a"));
}

TEST_F(PrefillMachineTest, RefusesShortPromptsDoublesAndWhatDoesNotFit) {
  EXPECT_TRUE(absl::IsInvalidArgument(machine_->Enqueue(Job("a", 1))));
  EXPECT_TRUE(machine_->Enqueue(Job("a", 2)).ok());
  EXPECT_TRUE(absl::IsAlreadyExists(machine_->Enqueue(Job("a", 2))));
  EXPECT_TRUE(absl::IsResourceExhausted(machine_->Enqueue(Job("b", 62))));
  EXPECT_TRUE(machine_->Enqueue(Job("b", 61)).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(machine_->Enqueue(Job("c", 2))));  // no KV
  machine_->Cancel(ReservationId("b"));
  EXPECT_TRUE(machine_->Enqueue(Job("b", 2)).ok());
  EXPECT_TRUE(machine_->Enqueue(Job("c", 2)).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(machine_->Enqueue(Job("d", 2))));  // max_jobs
}

TEST_F(PrefillMachineTest, CancelTellsThePeerAndFreesOnceNoTaskIsOut) {
  ASSERT_TRUE(machine_->Enqueue(Job("a", 7)).ok());
  const PrefillTask task = *machine_->NextTask();
  machine_->Cancel(ReservationId("a"));
  Collect();
  EXPECT_EQ(book_.free_blocks(), 14u);
  EXPECT_FALSE(machine_->HasWork());
  machine_->OnTaskDone(task);
  Collect();
  EXPECT_THAT(cancelled_, testing::ElementsAre("a"));
  EXPECT_TRUE(pushes_.empty());
  EXPECT_TRUE(done_.empty());
  EXPECT_EQ(book_.free_blocks(), 16u);
}

TEST_F(PrefillMachineTest, ACancelledLocalJobSaysWhenItsBlocksAreFree) {
  const BlockTable blocks = {7, 8};
  PrefillJob job = Job("a", 7);
  job.local_blocks = &blocks;
  ASSERT_TRUE(machine_->Enqueue(job).ok());
  const PrefillTask task = *machine_->NextTask();
  machine_->Cancel(ReservationId("a"));
  Collect();
  EXPECT_TRUE(failed_.empty());
  machine_->OnTaskDone(task);
  Collect();
  ASSERT_EQ(failed_.size(), 1u);
  EXPECT_TRUE(absl::IsCancelled(failed_[0]));
  EXPECT_TRUE(cancelled_.empty());
}

TEST_F(PrefillMachineTest, APushThatNobodyTookIsNotMadeAfterACancel) {
  ASSERT_TRUE(machine_->Enqueue(Job("a", 7)).ok());
  machine_->OnTaskDone(*machine_->NextTask());
  machine_->Cancel(ReservationId("a"));
  Collect();
  EXPECT_TRUE(pushes_.empty());
  EXPECT_THAT(cancelled_, testing::ElementsAre("a"));
}

TEST_F(PrefillMachineTest, AFailedTaskOrPeerFailsTheJob) {
  ASSERT_TRUE(machine_->Enqueue(Job("a", 7)).ok());
  ASSERT_TRUE(machine_->Enqueue(Job("b", 7)).ok());
  machine_->OnTaskFailed(*machine_->NextTask(), absl::InternalError("device"));
  machine_->OnPeerFailed(ReservationId("b"), absl::UnavailableError("stream"));
  machine_->OnPeerFailed(ReservationId("x"), absl::UnavailableError("stream"));
  Collect();
  ASSERT_EQ(failed_.size(), 2u);
  EXPECT_TRUE(absl::IsInternal(failed_[0]));
  EXPECT_TRUE(absl::IsUnavailable(failed_[1]));
  EXPECT_THAT(cancelled_, testing::ElementsAre("a"));  // b's peer knows
  EXPECT_EQ(book_.free_blocks(), 16u);
  EXPECT_EQ(machine_->jobs(), 0u);
}

}  // namespace
}  // namespace tandem::step
