#include "services/ctl/backoff.h"

#include <gtest/gtest.h>

namespace tandem::ctl {
namespace {

TEST(Backoff, DoublesFromOneSecondToThirty) {
  Backoff backoff;
  for (const int64_t seconds : {1, 2, 4, 8, 16, 30, 30, 30}) {
    EXPECT_EQ(backoff.Next(Duration::Seconds(3)), Duration::Seconds(seconds));
  }
}

TEST(Backoff, ForgetsAfterAMinuteUp) {
  Backoff backoff;
  for (int i = 0; i < 5; ++i) backoff.Next({});
  EXPECT_EQ(backoff.Next(Duration::Seconds(59)), Duration::Seconds(30));
  EXPECT_EQ(backoff.Next(Duration::Seconds(60)), Duration::Seconds(1));
  EXPECT_EQ(backoff.Next(Duration::Seconds(0)), Duration::Seconds(2));
}

}  // namespace
}  // namespace tandem::ctl
