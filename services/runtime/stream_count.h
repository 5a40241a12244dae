#pragma once

// How many streams of one kind are open: bounds them, and lets their owner wait for the last.

#include <cstddef>
#include <limits>
#include <optional>
#include <utility>

#include "scheduler/base/check.h"
#include "services/runtime/mutex.h"

namespace tandem {

// Safe from any thread. Outlives its places: the destructor waits for them.
class StreamCount {
 public:
  // One stream's place; an empty one is nobody's.
  class Place {
   public:
    Place() = default;
    explicit Place(StreamCount* count) : count_(count) {}
    Place(Place&& other) noexcept : count_(std::exchange(other.count_, nullptr)) {}
    Place& operator=(Place&&) = delete;
    ~Place() { Release(); }
    void Release() {
      if (StreamCount* count = std::exchange(count_, nullptr)) count->Leave();
    }

   private:
    StreamCount* count_ = nullptr;
  };

  explicit StreamCount(size_t max_streams = std::numeric_limits<size_t>::max())
      : max_streams_(max_streams) {}
  ~StreamCount() { WaitForNone(); }

  size_t max_streams() const { return max_streams_; }
  size_t open() const TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return open_;
  }

  // nullopt: `max_streams` are open.
  std::optional<Place> Take() {
    if (!Enter()) return std::nullopt;
    return Place(this);
  }
  // The same by hand; false: `max_streams` are open. Leave ends it.
  bool Enter() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (open_ >= max_streams_) return false;
    open_++;
    return true;
  }
  void Leave() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    TANDEM_CHECK(open_ > 0);
    if (--open_ == 0) none_.NotifyAll();
  }
  void WaitForNone() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    while (open_ > 0) none_.Wait(lock);
  }

 private:
  const size_t max_streams_;
  mutable Mutex mu_;
  CondVar none_;
  size_t open_ TANDEM_GUARDED_BY(mu_) = 0;
};

}  // namespace tandem
