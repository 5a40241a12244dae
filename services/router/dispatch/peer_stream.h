#pragma once

// What the streams of workers and gateways share: one message read at a time, one write in flight,
// a bounded queue of outgoing messages, one end.

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "services/router/dispatch/stream_count.h"
#include "services/runtime/mutex.h"
#include "services/runtime/status_map.h"

namespace tandem::router {

// Owned by shared_ptr; keeps itself alive from Start until gRPC's last word. The public functions
// may be called from any thread, at any time, and never block.
template <typename In, typename Out>
class PeerStream : public grpc::ServerBidiReactor<In, Out> {
 public:
  // `context` lives until gRPC's last word; `place` is given back then.
  PeerStream(grpc::CallbackServerContext* context, StreamCount::Place place,
             size_t max_queued_messages)
      : context_(context), place_(std::move(place)), max_queued_messages_(max_queued_messages) {}

  // Starts the first read. `self` is this stream.
  void Start(std::shared_ptr<PeerStream> self) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    self_ = std::move(self);
    ReadLocked();
  }

  // Reads the next message: the last one was handled.
  void ReadNext() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    ReadLocked();
  }

  // Queues a message. Past the bound the stream ends: its peer does not read.
  void Write(Out message) TANDEM_EXCLUDES(mu_) {
    {
      MutexLock lock(mu_);
      if (end_.has_value()) return;
      if (queue_.size() < max_queued_messages_) {
        queue_.push_back(std::move(message));
        AdvanceLocked();
        return;
      }
    }
    EndNow(absl::ResourceExhaustedError(
        absl::StrCat(max_queued_messages_, " messages are queued for a peer that does not read")));
  }

  // Ends the stream; what is queued is dropped, a write that hangs is cancelled.
  void EndNow(const absl::Status& status) TANDEM_EXCLUDES(mu_) {
    {
      MutexLock lock(mu_);
      queue_.clear();
      if (!end_.has_value()) end_ = ToGrpc(status);
      if (writing_ && !finished_) context_->TryCancel();
      AdvanceLocked();
    }
    TellGone(std::string(status.message()));
  }

  // Ends the stream once what is queued has been written.
  void EndAfterQueue(const absl::Status& status) TANDEM_EXCLUDES(mu_) {
    {
      MutexLock lock(mu_);
      if (!end_.has_value()) end_ = ToGrpc(status);
      AdvanceLocked();
    }
    TellGone(std::string(status.message()));
  }

 protected:
  // One message; the next is read after ReadNext. On a thread of gRPC's, one call at a time.
  virtual void OnMessage(In& message) = 0;
  // The stream ended, by either side, for that reason. Once; OnMessage may still be running.
  virtual void OnGone(const std::string& reason) = 0;

  std::shared_ptr<PeerStream> Self() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return self_;
  }

 private:
  void OnReadDone(bool ok) final {
    bool ended = false;
    {
      MutexLock lock(mu_);
      reading_ = false;
      ended = end_.has_value();
    }
    if (ended) return;
    if (ok) return OnMessage(incoming_);
    EndNow(absl::OkStatus());
  }

  void OnWriteDone(bool ok) final {
    {
      MutexLock lock(mu_);
      writing_ = false;
      if (ok || end_.has_value()) {
        if (!ok) queue_.clear();
        AdvanceLocked();
        return;
      }
    }
    EndNow(absl::UnavailableError("a write failed"));
  }

  void OnCancel() final { EndNow(absl::CancelledError("the peer's connection ended")); }

  void OnDone() final {
    std::shared_ptr<PeerStream> self;
    {
      MutexLock lock(mu_);
      self = std::move(self_);
    }
    TellGone("the stream is done");
    // `self` goes here, and with it, at the latest when the core drops its own, the stream.
    place_.Release();
  }

  // gRPC's calls run under the lock: none of them calls back on this thread.
  void ReadLocked() TANDEM_REQUIRES(mu_) {
    if (end_.has_value() || reading_ || self_ == nullptr) return;
    reading_ = true;
    this->StartRead(&incoming_);
  }

  void AdvanceLocked() TANDEM_REQUIRES(mu_) {
    if (writing_ || finished_ || self_ == nullptr) return;
    if (!queue_.empty()) {
      outgoing_ = std::move(queue_.front());
      queue_.pop_front();
      writing_ = true;
      this->StartWrite(&outgoing_);
    } else if (end_.has_value()) {
      finished_ = true;
      this->Finish(*end_);
    }
  }

  void TellGone(const std::string& reason) TANDEM_EXCLUDES(mu_) {
    {
      MutexLock lock(mu_);
      if (std::exchange(gone_told_, true)) return;
    }
    OnGone(reason.empty() ? "the stream ended" : reason);
  }

  grpc::CallbackServerContext* const context_;
  StreamCount::Place place_;
  const size_t max_queued_messages_;
  In incoming_;   // of the read in flight, or being handled
  Out outgoing_;  // of the write in flight

  Mutex mu_;
  std::shared_ptr<PeerStream> self_ TANDEM_GUARDED_BY(mu_);
  std::deque<Out> queue_ TANDEM_GUARDED_BY(mu_);
  bool reading_ TANDEM_GUARDED_BY(mu_) = false;
  bool writing_ TANDEM_GUARDED_BY(mu_) = false;
  bool finished_ TANDEM_GUARDED_BY(mu_) = false;
  bool gone_told_ TANDEM_GUARDED_BY(mu_) = false;
  std::optional<grpc::Status> end_ TANDEM_GUARDED_BY(mu_);
};

// The answer to a stream that is not taken.
template <typename In, typename Out>
class RefusedStream final : public grpc::ServerBidiReactor<In, Out> {
 public:
  explicit RefusedStream(const absl::Status& why) { this->Finish(ToGrpc(why)); }
  void OnDone() override { delete this; }
};

}  // namespace tandem::router
