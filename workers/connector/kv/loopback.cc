#include "workers/connector/kv/loopback.h"

#include <absl/strings/str_cat.h>

#include <utility>

#include "services/runtime/mutex.h"

namespace tandem {
namespace {

// The listener while the link lives; the lock is held while it is called, so that none is called
// after Close.
class ListenerSlot {
 public:
  explicit ListenerSlot(std::shared_ptr<KvLinkListener> listener)
      : listener_(std::move(listener)) {}
  void OnAck(const KvAckInfo& ack) TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    if (listener_ != nullptr) listener_->OnAck(ack);
  }
  void Close() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    listener_ = nullptr;
  }

 private:
  Mutex mu_;
  std::shared_ptr<KvLinkListener> listener_ TANDEM_GUARDED_BY(mu_);
};

class LoopbackKvLink final : public KvLink {
 public:
  LoopbackKvLink(KvDoor* door, std::shared_ptr<KvLinkListener> listener)
      : door_(door), slot_(std::make_shared<ListenerSlot>(std::move(listener))) {}
  ~LoopbackKvLink() override { slot_->Close(); }
  void Push(KvRows frame) override {
    if (door_ == nullptr) return;
    door_->OnKvFrame(std::move(frame), [slot = slot_](const KvAckInfo& ack) { slot->OnAck(ack); });
  }

 private:
  KvDoor* const door_;  // null: there is no such worker
  const std::shared_ptr<ListenerSlot> slot_;
};

}  // namespace

std::unique_ptr<KvLink> LoopbackKvConnector::Open(const WorkerId& attention_worker,
                                                  const std::string& /*address*/,
                                                  std::shared_ptr<KvLinkListener> listener) {
  const auto door = doors_.find(attention_worker);
  if (door == doors_.end()) {
    listener->OnBroken(absl::UnavailableError(
        absl::StrCat("no attention worker ", attention_worker.value(), " in this process")));
    return std::make_unique<LoopbackKvLink>(nullptr, nullptr);
  }
  return std::make_unique<LoopbackKvLink>(door->second, std::move(listener));
}

}  // namespace tandem
