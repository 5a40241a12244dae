#include "workers/microbench/time_calls.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <set>

#include "services/runtime/real_time.h"
#include "tests/fakes/fake_backend.h"
#include "tests/fakes/manual_time.h"
#include "workers/microbench/handoff_echo.h"

namespace tandem {
namespace {

using cost::CallKind;
using test::FakeBackend;
using test::FakeCall;
using test::FakeCallKind;

constexpr uint32_t kBlockTokens = 4;

TimingPlan Plan() { return {{1, 4}, {4, 9}, {2, 6}, {0, 8}, 5}; }

test::FakeOptions Options(const TimingPlan& plan) {
  test::FakeOptions options;
  options.block_tokens = kBlockTokens;
  options.kv_blocks = BlocksFor(plan, kBlockTokens);
  return options;
}

// What the fake device's calls take: attention 10 us and 3 a row, FFN 20 and 7, head 50 and 1.
Duration TimeOf(const FakeCall& call) {
  const auto rows = static_cast<int64_t>(call.rows);
  switch (call.kind) {
    case FakeCallKind::kAttention:
      return Duration::Microseconds(10 + 3 * rows);
    case FakeCallKind::kFfn:
      return Duration::Microseconds(20 + 7 * rows);
    case FakeCallKind::kHead:
      return Duration::Microseconds(50 + rows);
    default:
      return {};
  }
}

double Seconds(const cost::CallShape& shape) {
  const double rows = static_cast<double>(shape.rows);
  const double attention = 10 + 3 * rows, ffn = 20 + 7 * rows;
  switch (shape.kind) {
    case CallKind::kAttention:
      return 1e-6 * attention;
    case CallKind::kFfn:
      return 1e-6 * ffn;
    case CallKind::kHead:
      return 1e-6 * (50 + rows);
    case CallKind::kPrefill:
      return 1e-6 * (attention + ffn);
  }
  return 0;
}

TEST(TimeCalls, EachSizeOfEachKindTakesWhatADeviceSays) {
  test::ManualTime time;
  FakeBackend device(Options(Plan()));
  std::map<uint32_t, int> layers;
  device.SetHook([&](const FakeCall& call) {
    layers[call.layer]++;
    time.Advance(TimeOf(call));
    return absl::OkStatus();
  });
  std::vector<uint32_t> rounds;
  const auto timings = TimeCalls(device, nullptr, kBlockTokens, Plan(), time,
                                 [&](uint32_t round) { rounds.push_back(round); });
  ASSERT_TRUE(timings.ok()) << timings.status();
  EXPECT_EQ(timings->size(), 2u * 2 + 2 + 2 + 2 * 2);
  for (const CallTiming& timing : *timings) {
    SCOPED_TRACE(testing::PrintToString(std::string(cost::CallKindName(timing.shape.kind))));
    EXPECT_EQ(timing.pattern, Pattern::kAlone);
    EXPECT_NEAR(timing.seconds, Seconds(timing.shape), 1e-9);
    EXPECT_EQ(timing.spread, 0);
  }
  EXPECT_THAT(rounds, testing::ElementsAre(0, 1, 2, 3, 4, 5));
  EXPECT_EQ(layers[1], layers[2]);  // of every layer, as a step does
}

// One round in four is disturbed: the median does not see it, the spread does not hide more.
TEST(TimeCalls, TheMedianLeavesADisturbedRoundOut) {
  test::ManualTime time;
  FakeBackend device(Options(Plan()));
  uint32_t round = 0;
  device.SetHook([&](const FakeCall& call) {
    time.Advance(TimeOf(call) * (round == 2 ? 10 : 1));
    return absl::OkStatus();
  });
  const auto timings = TimeCalls(device, nullptr, kBlockTokens, Plan(), time,
                                 [&](uint32_t done) { round = done + 1; });
  ASSERT_TRUE(timings.ok()) << timings.status();
  for (const CallTiming& timing : *timings)
    EXPECT_NEAR(timing.seconds, Seconds(timing.shape), 1e-9);
}

// Goal: beside a neighbour the other stage is computed, and in turns one call of it between two.
TEST(TimeCalls, TheNeighbourComputesTheOtherStage) {
  test::ManualTime time;
  FakeBackend device(Options(Plan())), neighbour(Options(Plan()));
  std::atomic<FakeCallKind> beside = FakeCallKind::kEmbed;
  neighbour.SetHook([&](const FakeCall& call) {
    beside = call.kind;
    return absl::OkStatus();
  });
  std::map<FakeCallKind, std::set<FakeCallKind>> seen;
  device.SetHook([&](const FakeCall& call) {
    seen[call.kind].insert(beside);
    time.Advance(TimeOf(call));
    return absl::OkStatus();
  });
  const auto timings = TimeCalls(device, &neighbour, kBlockTokens, Plan(), time, [](uint32_t) {});
  ASSERT_TRUE(timings.ok()) << timings.status();
  std::map<Pattern, size_t> calls;
  for (const CallTiming& timing : *timings) {
    calls[timing.pattern]++;
    EXPECT_NEAR(timing.seconds, Seconds(timing.shape), 1e-9);
    EXPECT_FALSE(timing.pattern == Pattern::kTurns && timing.shape.kind == CallKind::kPrefill);
  }
  EXPECT_EQ(calls[Pattern::kAlone], 12u);
  EXPECT_EQ(calls[Pattern::kTurns], 8u);
  EXPECT_EQ(calls[Pattern::kContended], 12u);
  EXPECT_TRUE(seen[FakeCallKind::kHead].contains(FakeCallKind::kFfn));
  EXPECT_TRUE(seen[FakeCallKind::kFfn].contains(FakeCallKind::kAttention));
}

// In turns the neighbour's time is not the device's, and every call of one is between two of the
// other's.
TEST(TimeCalls, InTurnsOnlyTheDevicesOwnCallsAreTimed) {
  test::ManualTime time;
  FakeBackend device(Options(Plan())), neighbour(Options(Plan()));
  const TimingPlan plan = {{4}, {4}, {}, {}, 3};
  std::atomic<int> theirs = 0;
  neighbour.SetHook([&](const FakeCall&) {
    if (theirs.fetch_add(1) < 3) time.Advance(Duration::Seconds(1));  // of the first turns
    return absl::OkStatus();
  });
  device.SetHook([&](const FakeCall& call) {
    time.Advance(TimeOf(call));
    return absl::OkStatus();
  });
  const auto timings = TimeCalls(device, &neighbour, kBlockTokens, plan, time, [](uint32_t) {});
  ASSERT_TRUE(timings.ok()) << timings.status();
  for (const CallTiming& timing : *timings)
    EXPECT_NEAR(timing.seconds, Seconds(timing.shape), 1e-9);
  // Attention, FFN and head: 3 + 3 + 1 turns a round, in four rounds; contended ones besides.
  EXPECT_GE(theirs, 4 * 7);
}

TEST(TimeCalls, ACallThatFailsEndsItWithTheReason) {
  test::ManualTime time;
  FakeBackend device(Options(Plan())), neighbour(Options(Plan()));
  const auto fail = [](const FakeCall& call) {
    return call.kind == FakeCallKind::kFfn ? absl::InternalError("the FFN broke")
                                           : absl::OkStatus();
  };
  device.SetHook(fail);
  EXPECT_EQ(
      TimeCalls(device, nullptr, kBlockTokens, Plan(), time, [](uint32_t) {}).status().message(),
      "the FFN broke");
  device.SetHook([](const FakeCall&) { return absl::OkStatus(); });
  neighbour.SetHook(fail);
  EXPECT_EQ(
      TimeCalls(device, &neighbour, kBlockTokens, Plan(), time, [](uint32_t) {}).status().message(),
      "the FFN broke");
}

TEST(MedianOf, IsTheMiddleAndTheQuartilesDistanceOverIt) {
  const MedianSpread middle = MedianOf({5, 1, 2, 4, 3});
  EXPECT_EQ(middle.median, 3);
  EXPECT_NEAR(middle.spread, 2.0 / 3, 1e-12);
  EXPECT_EQ(MedianOf({7}).spread, 0);
}

// Goal: both kinds of ends make every round trip.
TEST(HandoffEcho, MakesTheRoundTripsThatItIsAskedFor) {
  RealTimeSource time;
  for (const auto ends : {HandoffEcho::Ends::kStreams, HandoffEcho::Ends::kDevices}) {
    const auto echo = HandoffEcho::Start(/*rows=*/3, /*hidden=*/8, ends, time);
    ASSERT_TRUE(echo.ok()) << echo.status();
    for (const uint32_t count : {1u, 20u}) {
      const std::vector<double> seconds = (*echo)->RoundTrips(count);
      EXPECT_EQ(seconds.size(), count);
      EXPECT_THAT(seconds, testing::Each(testing::Gt(0)));
    }
  }
}

// Goal: what the ends are busy for is no part of the round trip.
TEST(HandoffEcho, LeavesTheTurnsOut) {
  RealTimeSource time;
  constexpr Duration kTurn = Duration::Milliseconds(20);
  const auto echo = HandoffEcho::Start(1, 8, HandoffEcho::Ends::kDevices, time, kTurn);
  ASSERT_TRUE(echo.ok()) << echo.status();
  const Instant start = time.Now();
  const std::vector<double> seconds = (*echo)->RoundTrips(10);
  const double all = (time.Now() - start).seconds();
  double trips = 0;
  for (const double trip : seconds) trips += trip;
  EXPECT_THAT(seconds, testing::Each(testing::Gt(0)));
  EXPECT_LE(trips, all - 10 * 2 * kTurn.seconds());
}

}  // namespace
}  // namespace tandem
