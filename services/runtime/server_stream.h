#pragma once

// The answering side of a long-lived gRPC stream: one message read at a time, one write in flight,
// a bounded queue behind it, one end, and a life that lasts until gRPC's last word (OnDone).

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>
#include <grpcpp/server_context.h>
#include <grpcpp/support/server_callback.h>

#include <deque>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "services/runtime/mutex.h"
#include "services/runtime/status_map.h"
#include "services/runtime/stream_count.h"

namespace tandem {

struct ServerStreamOptions {
  StreamCount::Place place;  // given back with gRPC's last word
  // When given, EndNow can cancel a write in flight.
  grpc::CallbackServerContext* context = nullptr;
  size_t max_queued_messages = std::numeric_limits<size_t>::max();  // behind the write in flight
  bool open_at_once = true;  // tell the peer that the stream is open before there is more to say
};

// Made by make_shared; keeps itself alive from Start until gRPC's last word. The public functions
// may be called from any thread, at any time, and never block. Operations are started under the
// lock: gRPC never runs a reaction inside one, and so none is started after the end.
template <typename In, typename Out>
class ServerStream : public grpc::ServerBidiReactor<In, Out>,
                     public std::enable_shared_from_this<ServerStream<In, Out>> {
 public:
  explicit ServerStream(ServerStreamOptions options) : options_(std::move(options)) {}

  // Once, before the reactor is handed to gRPC. Starts the first read.
  void Start() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    self_ = this->shared_from_this();
    if (options_.open_at_once) this->StartSendInitialMetadata();
    ReadLocked();
    AdvanceLocked();
  }

  // Reads the next message, when OnMessage has said false to the last one.
  void ReadNext() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    ReadLocked();
  }

  // Queues a message; does nothing once the stream ends. Past the bound the stream ends: its peer
  // does not read.
  void Write(Out message) TANDEM_EXCLUDES(mu_) {
    {
      MutexLock lock(mu_);
      if (end_.has_value()) return;
      if (queue_.size() < options_.max_queued_messages) {
        queue_.push_back(std::move(message));
        AdvanceLocked();
        return;
      }
    }
    EndNow(absl::ResourceExhaustedError(absl::StrCat(
        options_.max_queued_messages, " messages are queued for a peer that does not read")));
  }

  // Ends the stream once what is queued has been written. The first end is the one that is told.
  void End(const absl::Status& status) TANDEM_EXCLUDES(mu_) {
    {
      MutexLock lock(mu_);
      EndLocked(status);
      AdvanceLocked();
    }
    TellGone();
  }

  // Ends the stream; what is queued is dropped. A peer may not read, and hold up a write in flight
  // for ever: `cancel_write` does not wait for it, but then the peer hears of that and not of the
  // status.
  void EndNow(const absl::Status& status, bool cancel_write = true) TANDEM_EXCLUDES(mu_) {
    {
      MutexLock lock(mu_);
      queue_.clear();
      EndLocked(status);
      if (writing_ && cancel_write && options_.context != nullptr) options_.context->TryCancel();
      AdvanceLocked();
    }
    TellGone();
  }

 protected:
  // One message, on a thread of gRPC's, one call at a time. True: read on. False: at the next
  // ReadNext, or never when the handler has ended the stream.
  virtual bool OnMessage(In& message) = 0;
  // The stream ends, by either side, for that reason. Once; OnMessage may still be running.
  virtual void OnGone(const std::string& /*reason*/) {}
  // gRPC's last word: no reaction runs, none follows.
  virtual void OnClosed() {}

 private:
  void OnReadDone(bool ok) final {
    bool ended = false;
    {
      MutexLock lock(mu_);
      reading_ = false;
      ended = end_.has_value();
    }
    if (ended) return;
    if (!ok) return End(absl::OkStatus());  // the peer has said its last, or is gone
    if (OnMessage(incoming_)) ReadNext();
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
    std::shared_ptr<ServerStream> self;  // may be the last owner
    {
      MutexLock lock(mu_);
      self = std::move(self_);
    }
    TellGone();
    OnClosed();
    options_.place.Release();
  }

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

  // The first end is the one that is told, to the peer and to OnGone.
  void EndLocked(const absl::Status& status) TANDEM_REQUIRES(mu_) {
    if (end_.has_value()) return;
    end_ = ToGrpc(status);
    reason_ = status.message().empty() ? "the stream ended" : std::string(status.message());
  }

  void TellGone() TANDEM_EXCLUDES(mu_) {
    std::string reason;
    {
      MutexLock lock(mu_);
      if (std::exchange(gone_told_, true)) return;
      reason = reason_;
    }
    OnGone(reason);
  }

  ServerStreamOptions options_;
  In incoming_;   // of the read in flight, or being handled
  Out outgoing_;  // of the write in flight

  Mutex mu_;
  std::shared_ptr<ServerStream> self_ TANDEM_GUARDED_BY(mu_);
  std::deque<Out> queue_ TANDEM_GUARDED_BY(mu_);
  bool reading_ TANDEM_GUARDED_BY(mu_) = false;
  bool writing_ TANDEM_GUARDED_BY(mu_) = false;
  bool finished_ TANDEM_GUARDED_BY(mu_) = false;
  bool gone_told_ TANDEM_GUARDED_BY(mu_) = false;
  std::optional<grpc::Status> end_ TANDEM_GUARDED_BY(mu_);
  std::string reason_ TANDEM_GUARDED_BY(mu_) = "the stream is done";  // of the end
};

// The answer to a stream that is not taken.
template <typename In, typename Out>
class RefusedStream final : public grpc::ServerBidiReactor<In, Out> {
 public:
  explicit RefusedStream(const absl::Status& why) { this->Finish(ToGrpc(why)); }
  void OnDone() override { delete this; }
};

// A stream of class S in a place of `streams`, started; refused with kResourceExhausted when there
// is none. S is made from (ServerStreamOptions, args...).
template <typename S, typename In, typename Out, typename... Args>
grpc::ServerBidiReactor<In, Out>* StartStream(StreamCount& streams, Args&&... args) {
  std::optional<StreamCount::Place> place = streams.Take();
  if (!place.has_value()) {
    return new RefusedStream<In, Out>(absl::ResourceExhaustedError(
        absl::StrCat("max_streams: ", streams.max_streams(), " streams are open")));
  }
  auto stream = std::make_shared<S>(ServerStreamOptions{.place = *std::move(place)},
                                    std::forward<Args>(args)...);
  stream->Start();
  return stream.get();
}

}  // namespace tandem
