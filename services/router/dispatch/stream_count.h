#pragma once

// How many streams of one kind are open: bounds them, and lets a service wait for the last.

#include <cstddef>
#include <optional>
#include <utility>

#include "scheduler/base/check.h"
#include "services/runtime/mutex.h"

namespace tandem::router {

// Safe from any thread. Outlives its places: the destructor waits for them.
class StreamCount {
 public:
  // One stream's place.
  class Place {
   public:
    explicit Place(StreamCount* count) : count_(count) {}
    Place(Place&& other) noexcept : count_(std::exchange(other.count_, nullptr)) {}
    Place& operator=(Place&&) = delete;
    ~Place() { Release(); }
    void Release() {
      if (StreamCount* count = std::exchange(count_, nullptr)) count->Leave();
    }

   private:
    StreamCount* count_;
  };

  explicit StreamCount(size_t max_streams) : max_streams_(max_streams) {}
  ~StreamCount() {
    MutexLock lock(mu_);
    while (streams_ > 0) none_.Wait(lock);
  }

  size_t max_streams() const { return max_streams_; }

  // nullopt: `max_streams` are open.
  std::optional<Place> Take() {
    MutexLock lock(mu_);
    if (streams_ >= max_streams_) return std::nullopt;
    streams_++;
    return Place(this);
  }

 private:
  void Leave() {
    MutexLock lock(mu_);
    TANDEM_CHECK(streams_ > 0);
    if (--streams_ == 0) none_.NotifyAll();
  }

  const size_t max_streams_;
  Mutex mu_;
  CondVar none_;
  size_t streams_ TANDEM_GUARDED_BY(mu_) = 0;
};

}  // namespace tandem::router
