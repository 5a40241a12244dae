#include "services/runtime/real_time.h"

#include <gtest/gtest.h>

#include <memory>
#include <thread>
#include <vector>

#include "services/runtime/mutex.h"

namespace tandem {
namespace {

// What the alarms of a test did, in order.
class Journal {
 public:
  void Add(int entry) {
    MutexLock lock(mu_);
    entries_.push_back(entry);
    changed_.NotifyAll();
  }
  std::vector<int> WaitForSize(size_t size) {
    MutexLock lock(mu_);
    while (entries_.size() < size) changed_.Wait(lock);
    return entries_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  std::vector<int> entries_;
};

TEST(RealTimeSource, NowNeverGoesBack) {
  RealTimeSource time;
  Instant last = time.Now();
  for (int i = 0; i < 1000; i++) {
    const Instant now = time.Now();
    EXPECT_GE(now, last);
    last = now;
  }
}

TEST(RealTimeSource, AlarmsFireInOrderOfTimeThenOfCallAndNotBeforeTheirTime) {
  Journal journal;
  RealTimeSource time;
  const Instant soon = time.Now() + Duration::Milliseconds(20);
  Instant fired;
  time.CallAt(soon + Duration::Milliseconds(5), [&] { journal.Add(3); });
  time.CallAt(soon, [&] {
    fired = time.Now();
    journal.Add(1);
  });
  time.CallAt(soon, [&] { journal.Add(2); });
  time.CallAt(Instant::FromNanoseconds(0), [&] { journal.Add(0); });  // in the past: at once
  EXPECT_EQ(journal.WaitForSize(4), (std::vector<int>{0, 1, 2, 3}));
  EXPECT_GE(fired, soon);
}

TEST(RealTimeSource, AnEarlierAlarmOvertakesTheOneThatIsWaitedFor) {
  Journal journal;
  RealTimeSource time;
  time.CallAt(time.Now() + Duration::Seconds(3600), [&] { journal.Add(2); });
  time.CallAt(time.Now() + Duration::Milliseconds(1), [&] { journal.Add(1); });
  EXPECT_EQ(journal.WaitForSize(1), (std::vector<int>{1}));
}

TEST(RealTimeSource, CancelledAlarmNeverFiresAndItsCaptureIsFreed) {
  Journal journal;
  RealTimeSource time;
  const Instant soon = time.Now() + Duration::Milliseconds(20);
  auto held = std::make_shared<int>(1);
  const AlarmId cancelled = time.CallAt(soon, [&, held] { journal.Add(1); });
  time.CallAt(soon + Duration::Milliseconds(1), [&] { journal.Add(2); });
  EXPECT_EQ(held.use_count(), 2);
  EXPECT_TRUE(time.Cancel(cancelled));
  EXPECT_EQ(held.use_count(), 1);
  EXPECT_FALSE(time.Cancel(cancelled));
  EXPECT_EQ(journal.WaitForSize(1), (std::vector<int>{2}));
}

TEST(RealTimeSource, CancelOfAFiredAlarmIsFalse) {
  Journal journal;
  RealTimeSource time;
  const AlarmId fired = time.CallAt(time.Now(), [&] { journal.Add(1); });
  journal.WaitForSize(1);
  EXPECT_FALSE(time.Cancel(fired));
}

TEST(RealTimeSource, AnAlarmMaySetAndCancelAlarms) {
  Journal journal;
  RealTimeSource time;
  const AlarmId never = time.CallAt(Instant::Never(), [&] { journal.Add(99); });
  time.CallAt(time.Now(), [&] {
    journal.Add(time.Cancel(never) ? 1 : 0);
    time.CallAt(time.Now(), [&] { journal.Add(2); });
  });
  EXPECT_EQ(journal.WaitForSize(2), (std::vector<int>{1, 2}));
}

TEST(RealTimeSource, DestructorDropsWhatHasNotFired) {
  auto held = std::make_shared<int>(1);
  {
    RealTimeSource time;
    time.CallAt(time.Now() + Duration::Seconds(3600), [held] {});
    time.CallAt(Instant::Never(), [held] {});
  }
  EXPECT_EQ(held.use_count(), 1);
}

TEST(RealTimeSource, ManyThreadsMaySetAndCancelAtOnce) {
  Journal journal;
  RealTimeSource time;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; t++) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 100; i++) {
        time.CallAt(time.Now() + Duration::Microseconds(i), [&, t] { journal.Add(t); });
        time.Cancel(time.CallAt(Instant::Never(), [&] { journal.Add(-1); }));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (int entry : journal.WaitForSize(400)) EXPECT_GE(entry, 0);
}

}  // namespace
}  // namespace tandem
