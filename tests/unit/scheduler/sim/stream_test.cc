// A simulated stream: delayed, in order, and lost as a whole.
#include "scheduler/sim/stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

namespace tandem::sim {
namespace {

class StreamTest : public testing::Test {
 protected:
  StreamTest() {
    LinkSpec link;
    link.latency = Duration::Milliseconds(1);
    link.jitter = Duration::Milliseconds(5);
    link.bytes_per_s = 1e6;
    stream_ = Stream::Open(
        time_, link, Random(7), [this](const Stream*) { dialler_told_++; },
        [this](const Stream*) { answerer_told_++; });
  }
  void RunAll() {
    while (time_.RunNext()) {}
  }

  VirtualTime time_;
  int dialler_told_ = 0, answerer_told_ = 0;
  std::shared_ptr<Stream> stream_;
};

TEST_F(StreamTest, KeepsTheOrderThoughDelaysDiffer) {
  std::vector<int> arrived, sent;
  for (int i = 0; i < 100; i++) {
    sent.push_back(i);
    stream_->ToAnswerer(10, [&arrived, i] { arrived.push_back(i); });
  }
  RunAll();
  EXPECT_EQ(arrived, sent);
}

TEST_F(StreamTest, BytesTakeTheLinksTime) {
  Instant arrived;
  stream_->ToAnswerer(1'000'000, [&] { arrived = time_.Now(); });  // 1 s at 1 MB/s
  RunAll();
  EXPECT_GE(arrived - Instant(), Duration::Seconds(1));
  EXPECT_LE(arrived - Instant(), Duration::Milliseconds(1006));
}

TEST_F(StreamTest, WhatIsOnItsWayAtABreakNeverArrivesAndBothEndsHearOnce) {
  stream_->ToAnswerer(10, [] { ADD_FAILURE() << "a lost message arrived"; });
  stream_->Break();
  stream_->Break();
  EXPECT_FALSE(stream_->open());
  stream_->ToAnswerer(10, [] { ADD_FAILURE() << "a broken stream carried a message"; });
  RunAll();
  EXPECT_EQ(dialler_told_, 1);
  EXPECT_EQ(answerer_told_, 1);
}

}  // namespace
}  // namespace tandem::sim
