// The policies that a worker's own state machines ask.
#include <gtest/gtest.h>

#include <map>

#include "scheduler/policy/batch_join.h"
#include "scheduler/policy/device_order.h"
#include "scheduler/policy/merge_wait.h"
#include "scheduler/policy/preemption.h"
#include "scheduler/policy/prefill_chunk.h"
#include "scheduler/policy/stagger.h"

namespace tandem::policy {
namespace {

TEST(JoinStep, TakesTheOldestUpToTheBatchLimit) {
  const std::vector<JoinCandidate> candidates = {{30}, {10}, {20}};
  EXPECT_EQ(JoinStep(candidates, 2), (std::vector<size_t>{1, 2}));
  EXPECT_EQ(JoinStep(candidates, 8), (std::vector<size_t>{1, 2, 0}));
  EXPECT_TRUE(JoinStep({}, 8).empty());
}

TEST(PreemptionVictim, IsTheNewestAndNeverTheOldest) {
  const std::vector<HeldSequence> held = {{1}, {5}, {3}};
  EXPECT_EQ(PreemptionVictim(held), 1u);
  EXPECT_EQ(PreemptionVictim(std::vector<HeldSequence>{{1}}), std::nullopt);
  EXPECT_EQ(PreemptionVictim({}), std::nullopt);
}

TEST(PrefillChunkRows, AreFullChunksThenTheRest) {
  EXPECT_EQ(PrefillChunkRows(100, 32), 32u);
  EXPECT_EQ(PrefillChunkRows(4, 32), 4u);
}

TEST(NextDeviceWork, IsNoneWithoutWork) { EXPECT_EQ(NextDeviceWork({}, {}), DeviceWork::kNone); }

TEST(NextDeviceWork, OneKindAloneAlwaysGetsTheDevice) {
  for (const DeviceWork last :
       {DeviceWork::kNone, DeviceWork::kFfn, DeviceWork::kDecode, DeviceWork::kPrefill}) {
    EXPECT_EQ(NextDeviceWork({true, false, false}, {last, last}), DeviceWork::kFfn);
    EXPECT_EQ(NextDeviceWork({false, true, false}, {last, last}), DeviceWork::kDecode);
    EXPECT_EQ(NextDeviceWork({false, false, true}, {last, last}), DeviceWork::kPrefill);
  }
}

TEST(NextDeviceWork, PrefillAlternatesWithStepWorkAndNobodyStarves) {
  DeviceTurn turn;
  std::map<DeviceWork, int> served;
  for (int i = 0; i < 400; i++) {
    const DeviceWork work = NextDeviceWork({true, true, true}, turn);
    EXPECT_TRUE(work != DeviceWork::kPrefill || turn.last != DeviceWork::kPrefill);
    served[work]++;
    turn.Took(work);
  }
  EXPECT_EQ(served[DeviceWork::kPrefill], 200);
  EXPECT_EQ(served[DeviceWork::kFfn], 100);
  EXPECT_EQ(served[DeviceWork::kDecode], 100);
}

// ---- The merge wait.

TEST(MergeUntil, WaitsOnlyForASenderOfTheLayerBeforeThatIsNear) {
  constexpr auto at = [](int64_t us) { return Instant() + Duration::Microseconds(us); };
  constexpr Duration kMax = Duration::Microseconds(100);
  const auto until = [&](const std::vector<ExpectedCall>& expected, uint32_t rows = 1,
                         bool others = false) {
    return MergeUntil({3, rows, at(1000), others, expected}, kMax);
  };
  EXPECT_EQ(until({}), at(1000));
  EXPECT_EQ(until({{3, at(1050)}}), at(1100));
  EXPECT_EQ(until({{3, at(1100)}}), at(1100));
  EXPECT_EQ(until({{3, at(1101)}}), at(1000)) << "past the bound";
  EXPECT_EQ(until({{3, at(900)}}), at(1100)) << "a little late";
  EXPECT_EQ(until({{3, at(899)}}), at(1000)) << "it has nothing to send";
  EXPECT_EQ(until({{2, at(1050)}, {4, at(1050)}}), at(1000)) << "of other layers";
  EXPECT_EQ(until({{2, at(1050)}, {3, at(1050)}}), at(1100));
  EXPECT_EQ(until({{3, at(1050)}}, 0), at(1000)) << "zero rows";
  EXPECT_EQ(until({{3, at(1050)}}, 1, true), at(1000)) << "other rows are queued";
  const std::vector<ExpectedCall> near = {{3, at(1050)}};
  EXPECT_EQ(MergeUntil({3, 1, at(1000), false, near}, Duration()), at(1000)) << "off";
}

// ---- Stepping out of phase.

TEST(StaggerDelay, AFollowerYieldsItsPartOfAStepAfterOneThatWasMostlyShared) {
  const auto delay = [](uint32_t phase, uint32_t shared, uint64_t since) {
    return StaggerDelay({phase, 4, 60, shared, Duration::Milliseconds(8), since});
  };
  EXPECT_EQ(delay(1, 31, 16), Duration::Milliseconds(2));
  EXPECT_EQ(delay(3, 60, 100), Duration::Milliseconds(6));
  EXPECT_EQ(delay(1, 30, 16), Duration()) << "half is not most";
  EXPECT_EQ(delay(0, 60, 16), Duration()) << "somebody stays";
  EXPECT_EQ(delay(1, 60, 15), Duration()) << "not again so soon";
  EXPECT_EQ(StaggerDelay({1, 2, 60, 60, Duration::Seconds(9), 16}), kMaxStagger);
}

}  // namespace
}  // namespace tandem::policy
