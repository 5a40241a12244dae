#pragma once

// A long-lived gRPC stream of the gateway to one address, dialled again with a back-off until it is
// parked.
//
// One write in flight and a queue behind it; each dial is a reactor of its own that dies with
// gRPC's last word, so a late word of an old stream touches nothing of the new one. Callbacks come
// from gRPC's threads, one at a time for a stream, and without a lock held.

#include <absl/status/status.h>
#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>

#include <algorithm>
#include <atomic>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "scheduler/base/time.h"
#include "services/runtime/log.h"
#include "services/runtime/mutex.h"
#include "services/runtime/status_map.h"

namespace tandem::gateway {

template <typename Out, typename In>
class ClientStream : public std::enable_shared_from_this<ClientStream<Out, In>> {
 public:
  using Reactor = grpc::ClientBidiReactor<Out, In>;
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

  ClientStream(TimeSource& time, Hooks hooks) : time_(time), hooks_(std::move(hooks)) {}

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
    if (old != nullptr) old->context.TryCancel();
    // From the clock's thread: the caller may hold a lock that the hello takes.
    if (!address.empty()) ConnectAt(time_.Now());
  }
  void Park() { Dial(""); }

  // Lost without a word when no stream is open: the peer learns of it when the stream is opened
  // again.
  void Write(Out message) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (call_ != nullptr) call_->Push(std::move(message));
  }

 private:
  static constexpr Duration kFirstBackoff = Duration::Milliseconds(100);
  static constexpr Duration kMostBackoff = Duration::Seconds(2);

  struct Call final : Reactor {
    explicit Call(std::shared_ptr<ClientStream> s) : stream(std::move(s)) {}
    void Begin(const std::string& address) {
      keep = stream->hooks_.dial(address, &context, this);
      self = std::static_pointer_cast<Call>(anchor.lock());
      this->AddHold();
      this->StartRead(&incoming);
      Push(stream->hooks_.hello());
      this->StartCall();
    }
    void Push(Out message) TANDEM_EXCLUDES(write_mu) {
      MutexLock lock(write_mu);
      if (closed) return;
      queue.push_back(std::move(message));
      if (queue.size() == 1) this->StartWrite(&queue.front());
    }
    void OnReadInitialMetadataDone(bool ok) override {
      if (!ok || !stream->Current(this)) return;
      heard = true;
      stream->hooks_.opened();
    }
    void OnWriteDone(bool ok) override {
      MutexLock lock(write_mu);
      queue.pop_front();
      if (ok && !closed && !queue.empty()) this->StartWrite(&queue.front());
    }
    void OnReadDone(bool ok) override {
      if (ok && stream->Current(this)) {
        stream->hooks_.received(incoming);
        this->StartRead(&incoming);
        return;
      }
      {
        MutexLock lock(write_mu);
        closed = true;
      }
      context.TryCancel();
      this->RemoveHold();
    }
    void OnDone(const grpc::Status& status) override {
      stream->Ended(this, heard, status);
      self.reset();  // may be the last owner: nothing after it
    }

    std::shared_ptr<ClientStream> stream;
    std::weak_ptr<void> anchor;
    std::shared_ptr<Call> self;
    std::shared_ptr<void> keep;
    grpc::ClientContext context;
    In incoming;
    std::atomic<bool> heard{false};  // opened
    Mutex write_mu;
    bool closed TANDEM_GUARDED_BY(write_mu) = false;
    std::deque<Out> queue TANDEM_GUARDED_BY(write_mu);  // the first is being written
  };

  void Connect() TANDEM_EXCLUDES(mu_) {
    auto call = std::make_shared<Call>(this->shared_from_this());
    call->anchor = call;
    std::string address;
    {
      MutexLock lock(mu_);
      if (address_.empty() || call_ != nullptr) return;
      address = address_;
      call_ = call;
    }
    call->Begin(address);
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
    ConnectAt(time_.Now() + wait);
  }
  void ConnectAt(Instant when) {
    time_.CallAt(when, [weak = this->weak_from_this()] {
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
