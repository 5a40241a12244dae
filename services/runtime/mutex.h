#pragma once

// A std::mutex that clang's thread-safety analysis checks and TSan sees (Debian's absl::Mutex it
// does not).

#include <chrono>
#include <condition_variable>
#include <mutex>

#if defined(__clang__)
#define TANDEM_THREAD_ATTRIBUTE(x) __attribute__((x))
#else
#define TANDEM_THREAD_ATTRIBUTE(x)
#endif
#define TANDEM_CAPABILITY(x) TANDEM_THREAD_ATTRIBUTE(capability(x))
#define TANDEM_SCOPED_CAPABILITY TANDEM_THREAD_ATTRIBUTE(scoped_lockable)
#define TANDEM_GUARDED_BY(x) TANDEM_THREAD_ATTRIBUTE(guarded_by(x))
#define TANDEM_REQUIRES(...) TANDEM_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define TANDEM_EXCLUDES(...) TANDEM_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define TANDEM_ACQUIRE(...) TANDEM_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define TANDEM_RELEASE(...) TANDEM_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define TANDEM_NO_ANALYSIS TANDEM_THREAD_ATTRIBUTE(no_thread_safety_analysis)

namespace tandem {

class TANDEM_CAPABILITY("mutex") Mutex {
 public:
  void Lock() TANDEM_ACQUIRE() { mu_.lock(); }
  void Unlock() TANDEM_RELEASE() { mu_.unlock(); }

 private:
  friend class MutexLock;
  friend class CondVar;
  std::mutex mu_;
};

class TANDEM_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mu) TANDEM_ACQUIRE(mu) : lock_(mu.mu_) {}
  ~MutexLock() TANDEM_RELEASE() {}
  // Lets the mutex go for a call out, and takes it again.
  void Unlock() TANDEM_RELEASE() { lock_.unlock(); }
  void Lock() TANDEM_ACQUIRE() { lock_.lock(); }

 private:
  friend class CondVar;
  std::unique_lock<std::mutex> lock_;
};

// Waits may wake without cause: loop on the condition.
class CondVar {
 public:
  void Wait(MutexLock& lock) TANDEM_NO_ANALYSIS { cv_.wait(lock.lock_); }
  // False: `timeout` passed.
  bool WaitFor(MutexLock& lock, std::chrono::nanoseconds timeout) TANDEM_NO_ANALYSIS {
    return cv_.wait_for(lock.lock_, timeout) == std::cv_status::no_timeout;
  }
  void NotifyOne() { cv_.notify_one(); }
  void NotifyAll() { cv_.notify_all(); }

 private:
  std::condition_variable cv_;
};

}  // namespace tandem
