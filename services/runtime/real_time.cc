#include "services/runtime/real_time.h"

#include <sys/prctl.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <map>
#include <thread>
#include <utility>

#include "scheduler/base/check.h"
#include "services/runtime/mutex.h"

namespace tandem {
namespace {

// Longest single wait: far alarms are waited for in pieces, so that no clock arithmetic overflows.
constexpr Duration kLongestWait = Duration::Seconds(3600);

Instant MachineNow() {
  return Instant::FromNanoseconds(std::chrono::duration_cast<std::chrono::nanoseconds>(
                                      std::chrono::steady_clock::now().time_since_epoch())
                                      .count());
}

}  // namespace

struct RealTimeSource::Impl {
  using Key = std::pair<Instant, uint64_t>;  // time, then call order

  void Run() TANDEM_EXCLUDES(mu);

  Mutex mu;
  CondVar changed;
  std::map<Key, absl::AnyInvocable<void()>> alarms TANDEM_GUARDED_BY(mu);
  std::map<uint64_t, Instant> when_by_id TANDEM_GUARDED_BY(mu);
  uint64_t next_id TANDEM_GUARDED_BY(mu) = 1;
  bool stopping TANDEM_GUARDED_BY(mu) = false;
  std::thread thread;
};

void RealTimeSource::Impl::Run() {
  MutexLock lock(mu);
  while (!stopping) {
    if (alarms.empty() || alarms.begin()->first.first == Instant::Never()) {
      changed.Wait(lock);
      continue;
    }
    const auto first = alarms.begin();
    const Duration wait = first->first.first - MachineNow();
    if (wait > Duration()) {
      changed.WaitFor(lock, std::chrono::nanoseconds(std::min(wait, kLongestWait).nanoseconds()));
      continue;
    }
    absl::AnyInvocable<void()> fn = std::move(first->second);
    when_by_id.erase(first->first.second);
    alarms.erase(first);
    lock.Unlock();
    fn();
    fn = nullptr;  // what it captured goes before the lock is taken again
    lock.Lock();
  }
}

RealTimeSource::RealTimeSource() : impl_(std::make_unique<Impl>()) {
  impl_->thread = std::thread([impl = impl_.get()] { impl->Run(); });
}

RealTimeSource::~RealTimeSource() {
  TANDEM_CHECK(std::this_thread::get_id() !=
               impl_->thread.get_id());  // an alarm must not destroy its own clock
  {
    MutexLock lock(impl_->mu);
    impl_->stopping = true;
  }
  impl_->changed.NotifyAll();
  impl_->thread.join();
}

int64_t UnixNanoseconds() {
  const auto since_1970 = std::chrono::system_clock::now().time_since_epoch();
  return std::chrono::duration_cast<std::chrono::nanoseconds>(since_1970).count();
}

Instant RealTimeSource::Now() const { return MachineNow(); }

void RealTimeSource::WaitUntil(Instant when) const {
  // By default Linux gathers wake-ups within 50 us.
  static thread_local const bool precise = prctl(PR_SET_TIMERSLACK, 1UL) == 0;
  static_cast<void>(precise);
  const timespec at = {when.nanoseconds() / 1'000'000'000, when.nanoseconds() % 1'000'000'000};
  while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &at, nullptr) == EINTR) {}
}

AlarmId RealTimeSource::CallAt(Instant when, absl::AnyInvocable<void()> fn) {
  uint64_t id = 0;
  {
    MutexLock lock(impl_->mu);
    id = impl_->next_id++;
    impl_->alarms.emplace(Impl::Key(when, id), std::move(fn));
    impl_->when_by_id.emplace(id, when);
  }
  impl_->changed.NotifyAll();
  return AlarmId{id};
}

bool RealTimeSource::Cancel(AlarmId alarm) {
  absl::AnyInvocable<void()>
      dropped;  // destroyed after the lock is let go: it may own things with locks
  MutexLock lock(impl_->mu);
  const auto found = impl_->when_by_id.find(static_cast<uint64_t>(alarm));
  if (found == impl_->when_by_id.end()) return false;
  const auto entry = impl_->alarms.find(Impl::Key(found->second, found->first));
  dropped = std::move(entry->second);
  impl_->alarms.erase(entry);
  impl_->when_by_id.erase(found);
  return true;
}

}  // namespace tandem
