#include "scheduler/step/ffn_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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
  machine_.OnTaskDone(task);
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
  machine_.OnTaskDone(task);
  EXPECT_EQ(machine_.queued_rows(), 1u);
  EXPECT_EQ(machine_.NextTask(kNow)->layer, 2u);
  EXPECT_EQ(machine_.streams(), 1u);
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
