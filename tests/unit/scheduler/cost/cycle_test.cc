#include "scheduler/cost/cycle.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace tandem::cost {
namespace {

CycleTimes Times(int64_t a, int64_t f, int64_t a2f, int64_t f2a, int64_t s = 0) {
  const auto us = [](int64_t n) { return Duration::Microseconds(n); };
  return {us(a), us(f), us(a2f), us(f2a), us(s), us(s)};
}

TEST(Cycle, IsBoundByComputeByTheRoundTripOrByTheLink) {
  EXPECT_EQ(CycleTime(Times(50, 30, 5, 5), 3), Duration::Microseconds(50));
  EXPECT_EQ(CycleTime(Times(30, 50, 5, 5), 3), Duration::Microseconds(50));
  EXPECT_EQ(CycleTime(Times(30, 30, 20, 20), 1), Duration::Microseconds(100));
  EXPECT_EQ(CycleTime(Times(30, 30, 20, 20), 2), Duration::Microseconds(50));
  EXPECT_EQ(CycleTime(Times(30, 30, 20, 20, 60), 4), Duration::Microseconds(60));
}

TEST(Cycle, StepIsFillAndACycleForEveryFurtherCall) {
  EXPECT_EQ(FillTime(Times(30, 30, 20, 20)), Duration::Microseconds(100));
  EXPECT_EQ(StepTime(Times(30, 30, 20, 20), 2, 10, Duration::Microseconds(7)),
            Duration::Microseconds(100 + 50 * 19 + 7));
  // One micro-batch: every layer waits for its own round trip.
  EXPECT_EQ(StepTime(Times(30, 30, 20, 20), 1, 10, Duration()), Duration::Microseconds(1000));
}

// The forms others use assume blocking sends or one serial link (facts/afd.md): upper bounds of
// ours.
TEST(Cycle, FormsOfOthersAreUpperBounds) {
  for (int64_t a = 10; a <= 100; a += 30) {
    for (int64_t f = 10; f <= 100; f += 30) {
      for (int64_t c = 0; c <= 60; c += 20) {
        const CycleTimes times = Times(a, f, c, c, c);
        EXPECT_LE(CycleTime(times, 2),
                  std::max(times.attention + times.a2f, times.ffn + times.f2a));
        EXPECT_LE(CycleTime(times, 3),
                  std::max({times.attention, times.ffn, times.a2f + times.f2a}));
      }
    }
  }
}

}  // namespace
}  // namespace tandem::cost
