#pragma once

// Waiting for something that another thread does, with a deadline that fails the test instead of
// hanging it.

#include <absl/status/status.h>
#include <gtest/gtest.h>

#include <chrono>
#include <optional>
#include <utility>

#include "services/runtime/mutex.h"

namespace tandem::test {

inline constexpr std::chrono::seconds kPatience{30};

// A value that comes once, and is taken: moved out, so that no two threads hold what it shares. (An
// absl::Status counts its copies inside Debian's libabsl_status, which TSan does not see: a copy
// here was reported as a race with the last one's end, once in some hundred runs.)
template <typename T>
class Promise {
 public:
  void Set(T value) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (!value_.has_value()) value_ = std::move(value);
    set_.NotifyAll();
  }
  bool IsSet() const TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return value_.has_value();
  }
  // nullopt after kPatience, with a test failure.
  std::optional<T> Wait() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    while (!value_.has_value()) {
      if (!set_.WaitFor(lock, kPatience)) break;
    }
    if (!value_.has_value()) ADD_FAILURE() << "nothing came within " << kPatience.count() << " s";
    return std::move(value_);  // value_ stays set: IsSet() is true ever after
  }

 private:
  mutable Mutex mu_;
  CondVar set_;
  std::optional<T> value_ TANDEM_GUARDED_BY(mu_);
};

// Opens once. A thread that waits in vain says so and goes on.
class Latch {
 public:
  void Open() { promise_.Set(true); }
  bool IsOpen() const { return promise_.IsSet(); }
  bool Wait() { return promise_.Wait().has_value(); }

 private:
  Promise<bool> promise_;
};

}  // namespace tandem::test
