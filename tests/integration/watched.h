#pragma once

// Waiting for what other threads do, with a generous deadline that fails the test instead of
// hanging it.

#include <gtest/gtest.h>

#include <chrono>
#include <utility>

#include "services/runtime/mutex.h"

namespace tandem::test {

inline constexpr std::chrono::seconds kDeadline{30};

// A value that many threads change and one waits on.
template <typename T>
class Watched {
 public:
  template <typename Fn>
  void Change(Fn&& fn) {
    MutexLock lock(mu_);
    fn(value_);
    changed_.NotifyAll();
  }
  // Waits until `condition(value)`; false, and a failed test, when that takes over kDeadline.
  template <typename Fn>
  bool Await(const char* what, Fn&& condition) {
    const auto end = std::chrono::steady_clock::now() + kDeadline;
    MutexLock lock(mu_);
    while (!condition(value_)) {
      const auto left = end - std::chrono::steady_clock::now();
      if (left <= left.zero()) {
        ADD_FAILURE() << "waited " << kDeadline.count() << " s for: " << what;
        return false;
      }
      changed_.WaitFor(lock, std::chrono::duration_cast<std::chrono::nanoseconds>(left));
    }
    return true;
  }
  T Get() {
    MutexLock lock(mu_);
    return value_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  T value_{};
};

}  // namespace tandem::test
