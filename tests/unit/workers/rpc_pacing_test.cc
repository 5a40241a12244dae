// When a silent peer is given up, and when a dead one is tried again; on a clock that the test
// moves.

#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/fakes/manual_time.h"
#include "workers/rpc/pacing.h"

namespace tandem {
namespace {

using test::ManualTime;

constexpr StallLimits kLimits{.base = Duration::Seconds(1),
                              .per_piece = Duration::Milliseconds(100),
                              .bytes_per_second = 1000};

class Stalls : public ::testing::Test {
 protected:
  ManualTime time_;
  std::vector<Duration> stalls_;
  std::shared_ptr<StallWatch> watch_ =
      StallWatch::Make(time_, kLimits, [this](Duration waited) { stalls_.push_back(waited); });
  // In steps, so that alarms come in time.
  void Pass(int milliseconds) {
    for (int i = 0; i < milliseconds; ++i) time_.Advance(Duration::Milliseconds(1));
  }
};

TEST_F(Stalls, SilenceIsTimedByPiecesAndBytes) {
  watch_->Begin(500);  // 1 s + 0.1 s + 0.5 s
  Pass(1599);
  EXPECT_TRUE(stalls_.empty());
  Pass(1);
  ASSERT_EQ(stalls_.size(), 1u);
  EXPECT_EQ(stalls_[0], Duration::Milliseconds(1600));
  Pass(10000);
  EXPECT_EQ(stalls_.size(), 1u);  // once
}

TEST_F(Stalls, EveryAnswerStartsTheWaitAnew) {
  for (int i = 0; i < 10; ++i) watch_->Begin(0);  // up to 1 s + 10 x 0.1 s
  for (int i = 0; i < 9; ++i) {
    Pass(1000);
    watch_->End(0);
  }
  EXPECT_TRUE(stalls_.empty());
  Pass(1099);
  EXPECT_TRUE(stalls_.empty());
  Pass(1);
  EXPECT_EQ(stalls_.size(), 1u);
}

TEST_F(Stalls, WithoutOutstandingWorkNothingStalls) {
  watch_->Begin(10);
  watch_->End(10);
  Pass(5000);
  EXPECT_TRUE(stalls_.empty());
  watch_->Begin(0);
  Pass(1099);
  EXPECT_TRUE(stalls_.empty());
  Pass(1);
  EXPECT_EQ(stalls_.size(), 1u);
}

TEST_F(Stalls, StoppedWatchIsSilent) {
  watch_->Begin(0);
  watch_->Stop();
  Pass(5000);
  EXPECT_TRUE(stalls_.empty());
}

// This process was stopped for a minute: its peer's answers may lie unread, so the peer gets a
// fresh wait.
TEST_F(Stalls, FrozenProcessGivesItsPeerAFreshWait) {
  watch_->Begin(0);
  time_.Advance(Duration::Seconds(60));
  EXPECT_TRUE(stalls_.empty());
  Pass(1099);
  EXPECT_TRUE(stalls_.empty());
  Pass(1);
  EXPECT_EQ(stalls_.size(), 1u);
}

TEST(BackoffTest, WaitsDoubleWithinTheirUpperHalfUpToTheMost) {
  Backoff backoff({.first = Duration::Milliseconds(100), .most = Duration::Seconds(1)}, Random(5));
  for (int64_t whole : {100, 200, 400, 800, 1000, 1000, 1000}) {
    const Duration wait = backoff.Next();
    EXPECT_GE(wait, Duration::Milliseconds(whole / 2)) << whole;
    EXPECT_LE(wait, Duration::Milliseconds(whole)) << whole;
  }
  backoff.Reset();
  EXPECT_LE(backoff.Next(), Duration::Milliseconds(100));
}

TEST(BackoffTest, ClientsOfOnePeerSpread) {
  Backoff one({}, Random(1)), other({}, Random(2));
  EXPECT_NE(one.Next(), other.Next());
}

TEST(DialerTest, FailedAddressWaitsOthersDoNotAndSuccessForgets) {
  ManualTime time;
  Dialer dialer(time, {.first = Duration::Milliseconds(100), .most = Duration::Seconds(1)},
                Random(1));
  int dialled = 0;
  const auto dial = [&] { ++dialled; };
  dialer.Dial("a", dial);
  EXPECT_EQ(dialled, 1);
  dialer.Failed("a");
  dialer.Dial("a", dial);
  EXPECT_EQ(dialled, 1);
  dialer.Dial("b", dial);
  EXPECT_EQ(dialled, 2);
  time.Advance(Duration::Milliseconds(49));
  EXPECT_EQ(dialled, 2);
  time.Advance(Duration::Milliseconds(51));
  EXPECT_EQ(dialled, 3);
  dialer.Failed("a");
  dialer.Succeeded("a");
  dialer.Dial("a", dial);
  EXPECT_EQ(dialled, 4);
}

}  // namespace
}  // namespace tandem
