#include "scheduler/step/ffn_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>

namespace tandem::step {
namespace {

constexpr Instant kNow = Instant::FromNanoseconds(1);
constexpr StreamId kA{1}, kB{2};

FfnConfig Config() {
  FfnConfig config;
  config.layers = 4;
  config.max_rows = 8;
  config.hidden_bytes = 10;
  config.max_queued_bytes = 1000;
  return config;
}

QueuedCall Call(StreamId stream, uint32_t layer, uint32_t rows, uint32_t micro_batch = 0) {
  return {stream, {1, layer, micro_batch, 0}, rows, kNow};
}

class FfnMachineTest : public ::testing::Test {
 protected:
  FfnMachineTest() {
    EXPECT_EQ(*machine_.OpenStream(kA, 8), 160u);
    EXPECT_EQ(*machine_.OpenStream(kB, 8), 160u);
  }
  FfnMachine machine_{Config()};
};

TEST_F(FfnMachineTest, ServesTheOldestFirstAndMergesItsLayer) {
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 2, 3)).ok());
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 1, 2, 1)).ok());
  ASSERT_TRUE(machine_.Enqueue(Call(kB, 2, 4)).ok());
  const FfnTask task = *machine_.NextTask(kNow);
  EXPECT_EQ(task.layer, 2u);
  EXPECT_EQ(task.rows, 7u);
  ASSERT_EQ(task.calls.size(), 2u);
  EXPECT_EQ(task.calls[0].stream, kA);
  EXPECT_EQ(task.calls[1].stream, kB);
  EXPECT_EQ(machine_.queued_rows(), 2u);
  EXPECT_EQ(machine_.NextTask(kNow)->layer, 1u);
  EXPECT_FALSE(machine_.HasWork());
  EXPECT_FALSE(machine_.NextTask(kNow).has_value());
}

TEST_F(FfnMachineTest, AMergeNeverExceedsMaxRows) {
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 0, 6)).ok());
  ASSERT_TRUE(machine_.Enqueue(Call(kB, 0, 5)).ok());
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 0, 2, 1)).ok());
  EXPECT_EQ(machine_.NextTask(kNow)->rows, 8u);
  EXPECT_EQ(machine_.NextTask(kNow)->rows, 5u);
}

TEST_F(FfnMachineTest, ZeroRowCallsAreAnsweredWithATaskOrAlone) {
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 0, 0)).ok());
  EXPECT_EQ(machine_.NextTask(kNow)->calls.size(), 1u);
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 0, 0)).ok());
  ASSERT_TRUE(machine_.Enqueue(Call(kB, 0, 8)).ok());
  const FfnTask task = *machine_.NextTask(kNow);
  EXPECT_EQ(task.calls.size(), 2u);
  EXPECT_EQ(task.rows, 8u);
}

TEST_F(FfnMachineTest, CreditIsEnforcedUntilTheReply) {
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 0, 8)).ok());
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 1, 8)).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(machine_.Enqueue(Call(kA, 2, 1))));
  const FfnTask task = *machine_.NextTask(kNow);
  EXPECT_TRUE(absl::IsResourceExhausted(machine_.Enqueue(Call(kA, 2, 1))));  // still owes the reply
  machine_.OnTaskDone(task, kNow);
  EXPECT_TRUE(machine_.Enqueue(Call(kA, 2, 8)).ok());
}

TEST_F(FfnMachineTest, BadCallsAreRefused) {
  EXPECT_TRUE(absl::IsInvalidArgument(machine_.Enqueue(Call(kA, 4, 1))));
  EXPECT_TRUE(absl::IsInvalidArgument(machine_.Enqueue(Call(kA, 0, 9))));
  EXPECT_TRUE(absl::IsNotFound(machine_.Enqueue(Call(StreamId{9}, 0, 1))));
  EXPECT_FALSE(machine_.HasWork());
}

TEST_F(FfnMachineTest, StreamsAreGrantedNoMoreThanTheQueueHolds) {
  EXPECT_TRUE(machine_.OpenStream(StreamId{3}, 100).ok());  // calls are cut to max_rows
  EXPECT_EQ(machine_.granted_bytes(), 480u);
  EXPECT_TRUE(machine_.OpenStream(StreamId{4}, 8).ok());
  EXPECT_TRUE(machine_.OpenStream(StreamId{5}, 8).ok());
  EXPECT_TRUE(machine_.OpenStream(StreamId{6}, 8).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(machine_.OpenStream(StreamId{7}, 8).status()));
  EXPECT_TRUE(absl::IsAlreadyExists(machine_.OpenStream(kA, 8).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(machine_.OpenStream(StreamId{7}, 0).status()));
  machine_.CloseStream(kA);
  EXPECT_TRUE(machine_.OpenStream(StreamId{7}, 8).ok());
}

TEST_F(FfnMachineTest, AClosedStreamsCallsAreDroppedAndItsTaskIsHarmless) {
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 0, 2)).ok());
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 1, 2)).ok());
  ASSERT_TRUE(machine_.Enqueue(Call(kB, 2, 1)).ok());
  const FfnTask task = *machine_.NextTask(kNow);
  machine_.CloseStream(kA);
  machine_.CloseStream(kA);
  machine_.OnTaskDone(task, kNow);
  EXPECT_EQ(machine_.queued_rows(), 1u);
  EXPECT_EQ(machine_.NextTask(kNow)->layer, 2u);
  EXPECT_EQ(machine_.streams(), 1u);
}

// ---- The merge wait.

constexpr Instant At(int64_t microseconds) { return kNow + Duration::Microseconds(microseconds); }

class MergeWaitTest : public ::testing::Test {
 protected:
  MergeWaitTest() {
    FfnConfig config = Config();
    config.max_merge_wait = Duration::Microseconds(100);
    machine_ = std::make_unique<FfnMachine>(config);
    EXPECT_TRUE(machine_->OpenStream(kA, 8).ok());
    EXPECT_TRUE(machine_->OpenStream(kB, 8).ok());
  }
  void Enqueue(StreamId stream, uint32_t layer, Instant at, uint32_t rows = 1,
               uint32_t micro_batch = 0) {
    ASSERT_TRUE(machine_->Enqueue({stream, {1, layer, micro_batch, 0}, rows, at}).ok());
  }
  // Computes what is ready until then, at once.
  void Answer(Instant at) {
    while (const auto task = machine_->NextTask(at)) machine_->OnTaskDone(*task, at);
  }
  std::unique_ptr<FfnMachine> machine_;
};

TEST_F(MergeWaitTest, OneSenderNeverWaits) {
  for (uint32_t layer = 0; layer < 4; layer++) {
    Enqueue(kA, layer, At(1000 * layer));
    EXPECT_EQ(machine_->ReadyAt(), At(1000 * layer)) << layer;
    Answer(At(1000 * layer + 10));
  }
}

TEST_F(MergeWaitTest, NorDoesItForItsOwnMicroBatches) {
  Enqueue(kA, 0, At(0), 1, 0);
  Enqueue(kA, 0, At(0), 1, 1);
  Answer(At(10));
  Enqueue(kA, 1, At(50), 1, 0);
  EXPECT_EQ(machine_->ReadyAt(), At(50));
}

TEST_F(MergeWaitTest, ACallWaitsForTheSenderWhosePreviousCallWasTheLayerBefore) {
  Enqueue(kA, 0, At(0));
  Enqueue(kB, 0, At(0));
  Answer(At(10));
  Enqueue(kA, 1, At(50));
  EXPECT_EQ(machine_->ReadyAt(), At(150));
  EXPECT_TRUE(machine_->HasWork());
  EXPECT_FALSE(machine_->NextTask(At(149)).has_value());
  Enqueue(kB, 1, At(80));
  EXPECT_EQ(machine_->ReadyAt(), At(50)) << "other rows are there: go";
  EXPECT_EQ(machine_->NextTask(At(80))->rows, 2u);
}

TEST_F(MergeWaitTest, TheWaitEndsAtItsBoundOrWithTheOtherStream) {
  Enqueue(kA, 0, At(0));
  Enqueue(kB, 0, At(0));
  Answer(At(10));
  Enqueue(kA, 1, At(50));
  EXPECT_EQ(machine_->NextTask(At(150))->rows, 1u);
  machine_->OnTaskDone({1, 1, {{kA, {1, 1, 0, 0}, 1, At(50)}}}, At(160));
  Enqueue(kA, 2, At(200));
  EXPECT_EQ(machine_->ReadyAt(), At(200)) << "the other one stands before layer 1";
  Answer(At(210));
  Enqueue(kB, 1, At(220));
  Answer(At(230));
  Enqueue(kB, 2, At(240));
  Answer(At(250));
  Enqueue(kB, 3, At(260));
  EXPECT_EQ(machine_->ReadyAt(), At(360));
  machine_->CloseStream(kA);
  EXPECT_EQ(machine_->ReadyAt(), At(260));
}

TEST_F(MergeWaitTest, NobodyWaitsForASenderThatIsExpectedTooLateOrIsOverdue) {
  for (uint32_t layer = 0; layer < 2; layer++) {  // B's gap is 5000 us
    Enqueue(kB, layer, At(5000 * layer));
    Answer(At(5000 * layer));
  }
  Enqueue(kA, 1, At(6000));
  Answer(At(6000));
  Enqueue(kA, 2, At(6010));
  EXPECT_EQ(machine_->ReadyAt(), At(6010)) << "B comes at 10000";
  Answer(At(6010));
  Enqueue(kA, 2, At(9950), 1, 1);
  EXPECT_EQ(machine_->ReadyAt(), At(10050)) << "now it is near";
  Answer(At(10050));
  Enqueue(kA, 2, At(10200), 1, 2);
  EXPECT_EQ(machine_->ReadyAt(), At(10200)) << "it did not come";
}

TEST_F(MergeWaitTest, ZeroRowsAndStepBordersDoNotWait) {
  Enqueue(kA, 0, At(0));
  Enqueue(kB, 0, At(0));
  Answer(At(10));
  Enqueue(kA, 1, At(50), 0);
  EXPECT_EQ(machine_->ReadyAt(), At(50)) << "zero rows";
  Answer(At(50));
  Enqueue(kA, 0, At(60), 1, 1);
  EXPECT_EQ(machine_->ReadyAt(), At(60)) << "layer 0 has no layer before";
}

TEST_F(MergeWaitTest, ASenderOfEndlessMicroBatchesIsForgottenNotRemembered) {
  for (uint32_t i = 0; i < 1000; i++) {
    Enqueue(kB, 0, At(i), 1, i);
    Answer(At(i));
  }
  Enqueue(kA, 1, At(5000));
  EXPECT_EQ(machine_->ReadyAt(), At(5000));
}

TEST(FfnMachine, ALayerOfAnotherShardIsRefusedNamingBoth) {
  FfnConfig config = Config();
  config.shard = {0, 2};
  FfnMachine machine(config);
  ASSERT_TRUE(machine.OpenStream(kA, 8).ok());
  EXPECT_TRUE(machine.Enqueue(Call(kA, 1, 1)).ok());
  EXPECT_EQ(machine.Enqueue(Call(kA, 2, 1)),
            absl::NotFoundError("layer 2: this worker holds layers [0, 2)"));
}

TEST_F(FfnMachineTest, ACallIsSharedWithWhomItIsComputedOrStandsBehind) {
  const auto next_is_shared = [&](bool expected) {
    const FfnTask task = *machine_.NextTask(kNow);
    for (const QueuedCall& call : task.calls) EXPECT_EQ(task.Shared(call), expected);
    return task;
  };
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 0, 1)).ok());
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 0, 1, 1)).ok());
  const FfnTask own = next_is_shared(false);           // its own micro-batches
  ASSERT_TRUE(machine_.Enqueue(Call(kB, 1, 1)).ok());  // while the device computes the other's
  machine_.OnTaskDone(own, kNow);
  machine_.OnTaskDone(next_is_shared(true), kNow);
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 2, 1)).ok());
  ASSERT_TRUE(machine_.Enqueue(Call(kB, 2, 1)).ok());
  machine_.OnTaskDone(next_is_shared(true), kNow);
  ASSERT_TRUE(machine_.Enqueue(Call(kA, 3, 1)).ok());
  machine_.OnTaskDone(next_is_shared(false), kNow);
}

TEST(FfnMachine, QueuedCallsAreBounded) {
  FfnConfig config = Config();
  config.max_queued_calls = 2;
  FfnMachine machine(config);
  ASSERT_TRUE(machine.OpenStream(kA, 8).ok());
  EXPECT_TRUE(machine.Enqueue(Call(kA, 0, 0)).ok());
  EXPECT_TRUE(machine.Enqueue(Call(kA, 0, 0)).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(machine.Enqueue(Call(kA, 0, 0))));
}

}  // namespace
}  // namespace tandem::step
