#pragma once

// What every long-lived gRPC stream of a worker has in common: one write in flight, a queue behind
// it, an end that is told once, and a life that lasts until gRPC's last word (OnDone).
//
// Derived classes are made by make_shared and keep themselves alive between Start and OnDone.
// Reactions (OnMessage, OnClosed) come from gRPC's threads, one at a time for a stream; Write, End
// and Cancel may come from any thread. The lock is held while an operation is started: a reaction
// never runs inside a Start... call (gRPC hands reactions that are not inlineable to its executor),
// and so none can start after the stream has ended.

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>
#include <grpcpp/support/server_callback.h>
#include <grpcpp/support/status.h>

#include <deque>
#include <functional>
#include <memory>
#include <thread>
#include <utility>

#include "scheduler/base/check.h"
#include "services/runtime/mutex.h"

namespace tandem {

// How many streams live; its owner waits for the last.
class StreamTally {
 public:
  void Add() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    ++count_;
  }
  void Remove() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    TANDEM_CHECK(count_ > 0);
    if (--count_ == 0) zero_.NotifyAll();
  }
  void WaitForNone() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    while (count_ > 0) zero_.Wait(lock);
  }
  uint32_t count() const TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return count_;
  }

 private:
  mutable Mutex mu_;
  CondVar zero_;
  uint32_t count_ TANDEM_GUARDED_BY(mu_) = 0;
};

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

template <typename In, typename Out>
class ServerStream : public grpc::ServerBidiReactor<In, Out>,
                     public std::enable_shared_from_this<ServerStream<In, Out>> {
 public:
  // Once, before the reactor is handed to gRPC.
  void Start() {
    self_ = this->shared_from_this();
    this->StartSendInitialMetadata();  // tells the peer that the stream is open before there is
                                       // anything to say
    this->StartRead(&incoming_);
  }

  // Does nothing once the stream ends.
  void Write(Out message) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (ending_) return;
    queue_.push_back(std::move(message));
    if (queue_.size() == 1) this->StartWrite(&queue_.front());
  }
  // Ends the stream when what is queued is written.
  void End(const grpc::Status& status) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (ending_) return;
    ending_ = true;
    end_status_ = status;
    if (queue_.empty()) this->Finish(end_status_);
  }
  // Ends the stream now: what is queued behind the write in flight is dropped.
  void EndNow(const grpc::Status& status) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    const bool finished = ending_ && queue_.empty();
    if (finished) return;
    if (!ending_) end_status_ = status;
    ending_ = true;
    if (queue_.empty()) {
      this->Finish(end_status_);
    } else {
      queue_.erase(queue_.begin() + 1, queue_.end());
    }
  }
  size_t queued() const TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return queue_.size();
  }

 protected:
  // A message came. False: read no further (the handler has ended the stream).
  virtual bool OnMessage(In& message) = 0;
  // The stream's last word; nothing follows.
  virtual void OnClosed() = 0;

 private:
  void OnReadDone(bool ok) final {
    if (!ok) return End(grpc::Status::OK);  // the peer has said its last, or is gone
    if (OnMessage(incoming_)) this->StartRead(&incoming_);
  }
  void OnWriteDone(bool ok) final {
    MutexLock lock(mu_);
    queue_.pop_front();
    if (!ok) {
      queue_.clear();
      if (!ending_) end_status_ = grpc::Status(grpc::StatusCode::CANCELLED, "the stream broke");
      ending_ = true;
    }
    if (!queue_.empty()) {
      this->StartWrite(&queue_.front());
    } else if (ending_) {
      this->Finish(end_status_);
    }
  }
  void OnCancel() final { EndNow(grpc::Status(grpc::StatusCode::CANCELLED, "the peer left")); }
  void OnDone() final {
    OnClosed();
    self_.reset();  // may be the last owner: nothing after it
  }

  std::shared_ptr<ServerStream> self_;
  In incoming_;
  mutable Mutex mu_;
  std::deque<Out> queue_ TANDEM_GUARDED_BY(mu_);  // the first is being written
  bool ending_ TANDEM_GUARDED_BY(mu_) =
      false;  // no Write from now on; finished when the queue is empty as well
  grpc::Status end_status_ TANDEM_GUARDED_BY(mu_);
};

template <typename Out, typename In>
class ClientStream : public grpc::ClientBidiReactor<Out, In>,
                     public std::enable_shared_from_this<ClientStream<Out, In>> {
 public:
  using Dial = std::function<void(grpc::ClientContext*, grpc::ClientBidiReactor<Out, In>*)>;

  // Opens the stream and writes what is queued. After Cancel it does nothing: false, and OnClosed
  // will not follow.
  bool Start(const Dial& dial) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (closed_) return false;
    self_ = this->shared_from_this();
    dial(&context_, this);
    this->AddHold();  // writes come from outside reactions
    started_ = true;
    this->StartRead(&incoming_);
    if (!queue_.empty()) this->StartWrite(&queue_.front());
    this->StartCall();
    return true;
  }
  // Queued before Start; does nothing once the stream ends.
  void Write(Out message) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (closed_) return;
    queue_.push_back(std::move(message));
    if (started_ && queue_.size() == 1) this->StartWrite(&queue_.front());
  }
  // Ends the stream now; OnClosed follows if it was started.
  void Cancel() TANDEM_EXCLUDES(mu_) {
    {
      MutexLock lock(mu_);
      Close();
    }
    context_.TryCancel();
  }
  size_t queued() const TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return queue_.size();
  }

 protected:
  // False: read no further (the handler has cancelled the stream).
  virtual bool OnMessage(In& message) = 0;
  // The stream's last word; nothing follows.
  virtual void OnClosed(const grpc::Status& status) = 0;

 private:
  void OnReadDone(bool ok) final {
    if (ok && OnMessage(incoming_)) return this->StartRead(&incoming_);
    MutexLock lock(mu_);
    Close();
  }
  void OnWriteDone(bool ok) final {
    MutexLock lock(mu_);
    queue_.pop_front();
    if (ok && !closed_ && !queue_.empty()) this->StartWrite(&queue_.front());
  }
  void OnDone(const grpc::Status& status) final {
    OnClosed(status);
    self_.reset();  // may be the last owner: nothing after it
  }
  void Close() TANDEM_REQUIRES(mu_) {
    if (closed_) return;
    closed_ = true;
    if (started_) this->RemoveHold();
  }

  std::shared_ptr<ClientStream> self_;
  grpc::ClientContext context_;
  In incoming_;
  mutable Mutex mu_;
  std::deque<Out> queue_ TANDEM_GUARDED_BY(mu_);  // once started, the first is being written
  bool started_ TANDEM_GUARDED_BY(mu_) = false;
  bool closed_ TANDEM_GUARDED_BY(mu_) = false;  // nothing is written from now on
};

}  // namespace tandem
