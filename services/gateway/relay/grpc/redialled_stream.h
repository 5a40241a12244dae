#pragma once

// A long-lived gRPC stream of the gateway to one address, dialled again with a back-off until it is
// parked.
//
// Each dial is a stream of its own that dies with gRPC's last word, so a late word of an old one
// touches nothing of the new one. Hooks are called from gRPC's threads, one at a time for a stream,
// and without a lock held.

#include <absl/status/status.h>
#include <grpcpp/client_context.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "scheduler/base/time.h"
#include "services/runtime/client_stream.h"
#include "services/runtime/log.h"
#include "services/runtime/mutex.h"
#include "services/runtime/status_map.h"

namespace tandem::gateway {

template <typename Out, typename In>
class RedialledStream : public std::enable_shared_from_this<RedialledStream<Out, In>> {
 public:
  using Reactor = typename ClientStream<Out, In>::Reactor;
  struct Hooks {
    // Starts the call on a fresh channel to the address; returns what must live as long as the
    // call.
    std::function<std::shared_ptr<void>(const std::string& address, grpc::ClientContext*, Reactor*)>
        dial;
    std::function<Out()> hello;    // the first message up
    std::function<void()> opened;  // the peer has taken the call
    std::function<void(In& message)> received;
    // Once per stream that was opened; the peer's last word, OK if it closed without one.
    std::function<void(const absl::Status& why)> lost;
  };

  RedialledStream(TimeSource& time, Hooks hooks) : time_(time), hooks_(std::move(hooks)) {}

  // Dials `address` from now on; a stream to another one ends.
  void Dial(const std::string& address) TANDEM_EXCLUDES(mu_) {
    std::shared_ptr<Call> old;
    {
      MutexLock lock(mu_);
      if (address == address_) return;
      address_ = address;
      backoff_ = kFirstBackoff;
      old = std::exchange(call_, nullptr);
    }
    if (old != nullptr) old->Cancel();
    // From the clock's thread: the caller may hold a lock that the hello takes.
    ConnectAfter(Duration());
  }
  // From its return on the clock is not asked for anything more.
  void Park() { Dial(""); }

  // Lost without a word when no stream is open: the peer learns of it when the stream is opened
  // again. So it is when the peer does not read: the stream is dialled anew.
  void Write(Out message) TANDEM_EXCLUDES(mu_) {
    std::shared_ptr<Call> stuck;
    {
      MutexLock lock(mu_);
      if (call_ == nullptr) return;
      if (call_->queued() < kMaxQueuedMessages) return call_->Write(std::move(message));
      stuck = call_;
    }
    stuck->Cancel();
  }

 private:
  static constexpr Duration kFirstBackoff = Duration::Milliseconds(100);
  static constexpr Duration kMostBackoff = Duration::Seconds(2);

  static constexpr size_t kMaxQueuedMessages = 65536;

  struct Call final : ClientStream<Out, In> {
    explicit Call(std::shared_ptr<RedialledStream> s) : owner(std::move(s)) {}
    void OnOpened() override {
      if (!owner->Current(this)) return;
      heard = true;
      owner->hooks_.opened();
    }
    bool OnMessage(In& message) override {
      if (!owner->Current(this)) return false;  // cancelled
      owner->hooks_.received(message);
      return true;
    }
    void OnClosed(const grpc::Status& status) override { owner->Ended(this, heard, status); }

    const std::shared_ptr<RedialledStream> owner;
    std::shared_ptr<void> keep;      // what the call runs on
    std::atomic<bool> heard{false};  // opened
  };

  void Connect() TANDEM_EXCLUDES(mu_) {
    auto call = std::make_shared<Call>(this->shared_from_this());
    std::string address;
    {
      MutexLock lock(mu_);
      if (address_.empty() || call_ != nullptr) return;
      address = address_;
      call_ = call;
    }
    // What is written meanwhile goes out behind the hello.
    call->Start([&](grpc::ClientContext* context,
                    Reactor* reactor) { call->keep = hooks_.dial(address, context, reactor); },
                hooks_.hello());
  }
  bool Current(const Call* call) const TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return call_.get() == call;
  }
  void Ended(Call* call, bool heard, const grpc::Status& status) TANDEM_EXCLUDES(mu_) {
    Duration wait;
    {
      MutexLock lock(mu_);
      if (call_.get() != call) return;  // parked, or dialled elsewhere
      call_ = nullptr;
      if (heard) backoff_ = kFirstBackoff;
      wait = backoff_;
      backoff_ = std::min(backoff_ * 2, kMostBackoff);
      LogWarn("stream_ended", {{"address", address_}, {"message", status.error_message()}});
    }
    if (heard) hooks_.lost(FromGrpc(status));
    ConnectAfter(wait);
  }
  // Under the lock, so that Park waits for it: a stream's last word may come when nobody is left.
  void ConnectAfter(Duration wait) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (address_.empty()) return;
    time_.CallAt(time_.Now() + wait, [weak = this->weak_from_this()] {
      if (const auto self = weak.lock()) self->Connect();
    });
  }

  TimeSource& time_;
  const Hooks hooks_;
  mutable Mutex mu_;
  std::string address_ TANDEM_GUARDED_BY(mu_);
  std::shared_ptr<Call> call_ TANDEM_GUARDED_BY(mu_);
  Duration backoff_ TANDEM_GUARDED_BY(mu_) = kFirstBackoff;
};

}  // namespace tandem::gateway
