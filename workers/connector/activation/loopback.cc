#include "workers/connector/activation/loopback.h"

#include <absl/strings/str_cat.h>

#include <optional>
#include <utility>

#include "services/runtime/mutex.h"

namespace tandem {
namespace {

// Both ends of one stream. The lock is held while the listener is called, so that none is called
// after Close.
class LoopbackStream {
 public:
  LoopbackStream(FfnDoor& door, std::shared_ptr<FfnLinkListener> listener)
      : door_(door), listener_(std::move(listener)) {}

  void OnOpened(absl::StatusOr<std::pair<step::StreamId, HandoffGrantInfo>> opened)
      TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (!opened.ok()) {
      if (listener_ != nullptr) listener_->OnBroken(opened.status());
      listener_ = nullptr;
    } else if (listener_ == nullptr) {
      door_.CloseStream(opened->first);
    } else {
      stream_ = opened->first;
      listener_->OnGrant(opened->second);
    }
  }
  void OnReply(F2a reply) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (listener_ != nullptr) listener_->OnReply(std::move(reply));
  }
  void OnClosed(const absl::Status& status) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    stream_.reset();
    if (listener_ != nullptr) listener_->OnBroken(status);
    listener_ = nullptr;
  }
  void Send(A2f call) TANDEM_EXCLUDES(mu_) {
    std::optional<step::StreamId> stream;
    {
      MutexLock lock(mu_);
      stream = stream_;
    }
    if (stream.has_value())
      door_.Call(*stream, std::move(call));  // else it is closed, and the listener was told
  }
  void SetLive(bool live, Instant arrives_at) TANDEM_EXCLUDES(mu_) {
    std::optional<step::StreamId> stream;
    {
      MutexLock lock(mu_);
      stream = stream_;
    }
    if (stream.has_value()) door_.SetLive(*stream, live, arrives_at);
  }
  void Close() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    listener_ = nullptr;
    if (stream_.has_value()) door_.CloseStream(*stream_);
  }

 private:
  FfnDoor& door_;
  Mutex mu_;
  std::shared_ptr<FfnLinkListener> listener_ TANDEM_GUARDED_BY(mu_);
  std::optional<step::StreamId> stream_ TANDEM_GUARDED_BY(mu_);
};

class LoopbackReplySink final : public FfnReplySink {
 public:
  explicit LoopbackReplySink(std::shared_ptr<LoopbackStream> stream) : stream_(std::move(stream)) {}
  void Reply(F2a reply) override { stream_->OnReply(std::move(reply)); }
  void Close(const absl::Status& status) override { stream_->OnClosed(status); }

 private:
  std::shared_ptr<LoopbackStream> stream_;
};

class LoopbackFfnLink final : public FfnLink {
 public:
  explicit LoopbackFfnLink(std::shared_ptr<LoopbackStream> stream) : stream_(std::move(stream)) {}
  ~LoopbackFfnLink() override {
    if (stream_ != nullptr) stream_->Close();
  }
  void Send(A2f call) override {
    if (stream_ != nullptr) stream_->Send(std::move(call));
  }
  void SetLive(bool live, Instant arrives_at) override {
    if (stream_ != nullptr) stream_->SetLive(live, arrives_at);
  }

 private:
  std::shared_ptr<LoopbackStream> stream_;  // null: there is no such holder
};

}  // namespace

std::unique_ptr<FfnLink> LoopbackActivationConnector::Open(
    const FfnEndpoint& holder, const HandoffHello& hello,
    std::shared_ptr<FfnLinkListener> listener) {
  const auto door = doors_.find(holder.worker);
  if (door == doors_.end()) {
    listener->OnBroken(absl::UnavailableError(
        absl::StrCat("no FFN worker ", holder.worker.value(), " in this process")));
    return std::make_unique<LoopbackFfnLink>(nullptr);
  }
  auto stream = std::make_shared<LoopbackStream>(*door->second, std::move(listener));
  door->second->OpenStream(hello, std::make_shared<LoopbackReplySink>(stream),
                           [stream](auto opened) { stream->OnOpened(std::move(opened)); });
  return std::make_unique<LoopbackFfnLink>(std::move(stream));
}

}  // namespace tandem
