// The simulator's clock: alarms in order of time, then of call, and time that moves by nothing
// else.
#include "scheduler/sim/virtual_time.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace tandem::sim {
namespace {

using testing::ElementsAre;

Instant At(int64_t ms) { return Instant() + Duration::Milliseconds(ms); }

class VirtualTimeTest : public testing::Test {
 protected:
  AlarmId Note(int64_t ms, std::string name) {
    return time_.CallAt(At(ms), [this, name] { fired_.push_back(name); });
  }
  void RunAll() {
    while (time_.RunNext()) {}
  }

  VirtualTime time_;
  std::vector<std::string> fired_;
};

TEST_F(VirtualTimeTest, FiresInOrderOfTimeThenOfCall) {
  Note(20, "c");
  Note(10, "a");
  Note(10, "b");
  RunAll();
  EXPECT_THAT(fired_, ElementsAre("a", "b", "c"));
  EXPECT_EQ(time_.Now(), At(20));
  EXPECT_EQ(time_.fired(), 3u);
  EXPECT_FALSE(time_.RunNext());
}

TEST_F(VirtualTimeTest, ACancelledAlarmDoesNotFireAndIsCancelledOnce) {
  const AlarmId alarm = Note(10, "a");
  Note(20, "b");
  EXPECT_TRUE(time_.Cancel(alarm));
  EXPECT_FALSE(time_.Cancel(alarm));
  RunAll();
  EXPECT_THAT(fired_, ElementsAre("b"));
}

TEST_F(VirtualTimeTest, AnAlarmThatFiredCannotBeCancelled) {
  AlarmId own{};
  own = time_.CallAt(At(5), [this, &own] { EXPECT_FALSE(time_.Cancel(own)); });
  RunAll();
  EXPECT_FALSE(time_.Cancel(own));
}

TEST_F(VirtualTimeTest, AnAlarmInThePastFiresNowAndTimeNeverGoesBack) {
  time_.CallAt(At(30), [this] { Note(10, "late"); });
  RunAll();
  EXPECT_THAT(fired_, ElementsAre("late"));
  EXPECT_EQ(time_.Now(), At(30));
}

}  // namespace
}  // namespace tandem::sim
