#pragma once

// The dialling side of a long-lived gRPC stream: one write in flight, a queue behind it, an end
// that is told once, and a life that lasts until gRPC's last word (OnDone).

#include <grpcpp/client_context.h>
#include <grpcpp/support/client_callback.h>
#include <grpcpp/support/status.h>

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <utility>

#include "services/runtime/mutex.h"

namespace tandem {

// Made by make_shared; keeps itself alive between Start and OnDone. OnOpened, OnMessage and
// OnClosed come from gRPC's threads, one at a time and in this order: gRPC runs the reactions of a
// stream's different operations side by side, so the first read is started when the peer has taken
// the call. The public functions may be called from any thread. Operations are started under the
// lock: gRPC never runs a reaction inside one, and so none is started after the end.
template <typename Out, typename In>
class ClientStream : public grpc::ClientBidiReactor<Out, In>,
                     public std::enable_shared_from_this<ClientStream<Out, In>> {
 public:
  using Reactor = grpc::ClientBidiReactor<Out, In>;
  using Dial = std::function<void(grpc::ClientContext*, Reactor*)>;

  // Opens the stream and writes `first`, then what is queued. After Cancel it does nothing: false,
  // and OnClosed will not follow.
  bool Start(const Dial& dial, std::optional<Out> first = std::nullopt) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (closed_) return false;
    if (first.has_value()) queue_.push_front(*std::move(first));
    self_ = this->shared_from_this();
    dial(&context_, this);
    this->AddHold();  // writes come from outside reactions
    started_ = true;
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
  // The peer has taken the call.
  virtual void OnOpened() {}
  // False: read no further (the handler has cancelled the stream).
  virtual bool OnMessage(In& message) = 0;
  // The stream's last word; nothing follows.
  virtual void OnClosed(const grpc::Status& status) = 0;

 private:
  void OnReadInitialMetadataDone(bool ok) final {
    if (ok) OnOpened();
    ReadOrClose(ok);
  }
  void OnReadDone(bool ok) final { ReadOrClose(ok && OnMessage(incoming_)); }
  void ReadOrClose(bool read) TANDEM_EXCLUDES(mu_) {
    if (read) return this->StartRead(&incoming_);
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
