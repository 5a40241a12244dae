// K: its bounds, and that it finds the shortest step from what calls took.

#include "scheduler/policy/micro_batch_count.h"

#include <gtest/gtest.h>

#include <cstdint>

#include "scheduler/base/random.h"
#include "scheduler/cost/cycle.h"

namespace tandem::policy {
namespace {

TEST(MostMicroBatches, OneRowOrALoopbackIsOneMicroBatch) {
  EXPECT_EQ(MostMicroBatches(1, {4, 256}), 1u);
  EXPECT_EQ(MostMicroBatches(64, {1, 256}), 1u);
}

TEST(MostMicroBatches, AsManyAsMayBeInFlight) {
  EXPECT_EQ(MostMicroBatches(2, {2, 256}), 2u);
  EXPECT_EQ(MostMicroBatches(3, {4, 256}), 3u);
  EXPECT_EQ(MostMicroBatches(64, {2, 256}), 2u);
}

TEST(MostMicroBatches, NoCallExceedsTheHoldersRows) {
  for (uint32_t rows = 1; rows <= 64; rows++) {
    for (uint32_t max_rows = 1; max_rows <= 10; max_rows++) {
      const uint32_t count = MostMicroBatches(rows, {2, max_rows});
      EXPECT_LE((rows - 1) / count + 1, max_rows) << rows << " rows in " << count;
      EXPECT_LE(count, rows);
    }
  }
}

TEST(MicroBatchCount, IsTheMostWhileNothingIsMeasured) {
  EXPECT_EQ(MicroBatchCount(64, {3, 256}, CallTimes(), 32), 3u);
  CallTimes half;
  half.AddAttention(8, Duration::Microseconds(10));
  half.EndStep();
  EXPECT_EQ(MicroBatchCount(64, {3, 256}, half, 32), 3u);
}

// A pair of devices: every call's time is fixed + rows·each.
struct Pair {
  struct Call {
    Duration fixed, each;
    Duration Of(uint32_t rows) const { return fixed + each * int64_t{rows}; }
  };
  Call attention, ffn, transfer, head;
  uint32_t layers = 32;

  Duration Step(uint32_t rows, uint32_t count) const {
    const uint32_t size = (rows - 1) / count + 1;
    const cost::CycleTimes times{attention.Of(size), ffn.Of(size), transfer.Of(size), {}, {}, {}};
    return cost::StepTime(times, count, layers, head.Of(size) * int64_t{count});
  }
  // Plays one step of `rows` in `count`, and measures it.
  void Play(uint32_t rows, uint32_t count, CallTimes& times) const {
    for (uint32_t batch = 0; batch < count; batch++) {
      const uint32_t size = rows / count + (batch < rows % count ? 1 : 0);
      for (uint32_t layer = 1; layer < layers; layer++)
        times.AddAttention(size, attention.Of(size));
      for (uint32_t layer = 0; layer < layers; layer++)
        times.AddFfn(size, ffn.Of(size), transfer.Of(size));
      times.AddHead(size, head.Of(size));
    }
    times.EndStep();
  }
  uint32_t Settle(uint32_t rows, const MicroBatchLimits& limits, uint32_t steps,
                  CallTimes& times) const {
    uint32_t count = 0;
    for (uint32_t step = 0; step < steps; step++) {
      count = MicroBatchCount(rows, limits, times, layers);
      Play(rows, count, times);
    }
    return count;
  }
};

constexpr MicroBatchLimits kThree = {3, 256};

Pair::Call Call(int64_t fixed_us, int64_t each_us) {
  return {Duration::Microseconds(fixed_us), Duration::Microseconds(each_us)};
}

TEST(MicroBatchCount, CallsOfFixedTimeAreNotCut) {
  // Streaming weights: three calls cost three times as much, and the links are short.
  const Pair pair{Call(40, 0), Call(20, 0), Call(4, 0), Call(100, 1)};
  CallTimes times;
  EXPECT_EQ(pair.Settle(8, kThree, 8, times), 1u);
}

TEST(MicroBatchCount, CallsThatGrowWithTheirRowsOverlap) {
  const Pair pair{Call(2, 10), Call(2, 10), Call(20, 1), Call(10, 1)};
  CallTimes times;
  EXPECT_EQ(pair.Settle(64, kThree, 8, times), 3u);
}

// Goal: whatever the devices, the count settles at a step no more than the gain from the shortest.
// Method: random pairs and batches; and again after the devices changed, once what was measured
// before is forgotten.
TEST(MicroBatchCount, SettlesAtTheShortestStepForAnyDevices) {
  Random random(17);
  const auto call = [&](int64_t fixed, int64_t each) {
    return Call(static_cast<int64_t>(random.Below(fixed)),
                static_cast<int64_t>(random.Below(each)));
  };
  for (int round = 0; round < 300; round++) {
    const MicroBatchLimits limits{1 + static_cast<uint32_t>(random.Below(4)), 256};
    const uint32_t rows = 1 + static_cast<uint32_t>(random.Below(16));  // sizes are told apart
    CallTimes times;
    for (const uint32_t steps : {12u, static_cast<uint32_t>(kForgetSteps) + 30}) {
      const Pair pair{call(200, 20), call(200, 20), call(100, 5), call(1000, 10)};
      const uint32_t count = pair.Settle(rows, limits, steps, times);
      Duration shortest = pair.Step(rows, 1);
      for (uint32_t k = 2; k <= MostMicroBatches(rows, limits); k++)
        shortest = std::min(shortest, pair.Step(rows, k));
      EXPECT_LE(pair.Step(rows, count).seconds(), shortest.seconds() * 1.045)
          << "round " << round << ", " << rows << " rows, K=" << count << ", after " << steps;
    }
  }
}

}  // namespace
}  // namespace tandem::policy
