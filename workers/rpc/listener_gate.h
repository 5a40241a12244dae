#pragma once

#include <memory>
#include <thread>
#include <utility>

#include "services/runtime/mutex.h"

namespace tandem {

// Calls to a listener, one at a time, that its owner can forbid: after Shut returns none runs and
// none follows. Shut from within a call is allowed. The listener is called without a lock.
template <typename Listener>
class ListenerGate {
 public:
  explicit ListenerGate(std::shared_ptr<Listener> listener) : listener_(std::move(listener)) {}

  // False: shut.
  template <typename Fn>
  bool Call(Fn&& fn) TANDEM_EXCLUDES(mu_) {
    return Enter(fn, /*last=*/false);
  }
  // The listener's last call.
  template <typename Fn>
  bool CallLast(Fn&& fn) TANDEM_EXCLUDES(mu_) {
    return Enter(fn, /*last=*/true);
  }
  void Shut() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    listener_ = nullptr;
    while (calling_ && caller_ != std::this_thread::get_id()) idle_.Wait(lock);
  }

 private:
  template <typename Fn>
  bool Enter(Fn& fn, bool last) TANDEM_EXCLUDES(mu_) {
    std::shared_ptr<Listener> listener;
    {
      MutexLock lock(mu_);
      while (calling_) idle_.Wait(lock);
      if (listener_ == nullptr) return false;
      listener = last ? std::exchange(listener_, nullptr) : listener_;
      calling_ = true;
      caller_ = std::this_thread::get_id();
    }
    fn(*listener);
    MutexLock lock(mu_);
    calling_ = false;
    idle_.NotifyAll();
    return true;
  }

  Mutex mu_;
  CondVar idle_;
  std::shared_ptr<Listener> listener_ TANDEM_GUARDED_BY(mu_);
  bool calling_ TANDEM_GUARDED_BY(mu_) = false;
  std::thread::id caller_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem
