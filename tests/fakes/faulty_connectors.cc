#include "tests/fakes/faulty_connectors.h"

#include <utility>
#include <vector>

namespace tandem::test {

// What stands between a link and its listener.
class FaultyActivationConnector::Wire final : public FfnLinkListener {
 public:
  explicit Wire(std::shared_ptr<FfnLinkListener> listener) : listener_(std::move(listener)) {}
  void OnGrant(const HandoffGrantInfo& grant) override {
    MutexLock lock(mu_);
    if (listener_ != nullptr) listener_->OnGrant(grant);
  }
  void OnReply(F2a reply) override {
    MutexLock lock(mu_);
    if (held_) {
      waiting_.push_back(std::move(reply));
    } else if (listener_ != nullptr) {
      listener_->OnReply(std::move(reply));
    }
  }
  void OnBroken(const absl::Status& status) override {
    MutexLock lock(mu_);
    if (listener_ != nullptr) listener_->OnBroken(status);
    listener_ = nullptr;
  }
  void Hold() {
    MutexLock lock(mu_);
    held_ = true;
  }
  void Release() {
    MutexLock lock(mu_);
    held_ = false;
    for (F2a& reply : waiting_) {
      if (listener_ != nullptr) listener_->OnReply(std::move(reply));
    }
    waiting_.clear();
  }
  void Close() {
    MutexLock lock(mu_);
    listener_ = nullptr;
  }
  bool broken() {
    MutexLock lock(mu_);
    return listener_ == nullptr;
  }

 private:
  Mutex mu_;
  std::shared_ptr<FfnLinkListener> listener_ TANDEM_GUARDED_BY(mu_);  // null: broken or closed
  bool held_ TANDEM_GUARDED_BY(mu_) = false;
  std::deque<F2a> waiting_ TANDEM_GUARDED_BY(mu_);
};

class FaultyActivationConnector::Link final : public FfnLink {
 public:
  Link(std::shared_ptr<Wire> wire, std::unique_ptr<FfnLink> inner)
      : wire_(std::move(wire)), inner_(std::move(inner)) {}
  ~Link() override { wire_->Close(); }
  void Send(A2f call) override {
    if (!wire_->broken()) inner_->Send(std::move(call));
  }
  void SetLive(bool live, Instant arrives_at) override {
    if (!wire_->broken()) inner_->SetLive(live, arrives_at);
  }

 private:
  std::shared_ptr<Wire> wire_;
  std::unique_ptr<FfnLink> inner_;  // null: refused
};

std::unique_ptr<FfnLink> FaultyActivationConnector::Open(
    const FfnEndpoint& holder, const HandoffHello& hello,
    std::shared_ptr<FfnLinkListener> listener) {
  auto wire = std::make_shared<Wire>(std::move(listener));
  {
    MutexLock lock(mu_);
    if (!dead_.contains(holder.worker)) {
      wires_.emplace(holder.worker, wire);
    } else {
      wire->OnBroken(absl::UnavailableError("connection refused"));
      return std::make_unique<Link>(std::move(wire), nullptr);
    }
  }
  auto inner = inner_.Open(holder, hello, wire);
  return std::make_unique<Link>(std::move(wire), std::move(inner));
}

std::vector<std::shared_ptr<FaultyActivationConnector::Wire>> FaultyActivationConnector::WiresTo(
    const WorkerId& worker) {
  std::vector<std::shared_ptr<Wire>> wires;
  for (auto [it, end] = wires_.equal_range(worker); it != end; ++it) {
    if (auto wire = it->second.lock()) wires.push_back(std::move(wire));
  }
  return wires;
}

void FaultyActivationConnector::Kill(const WorkerId& worker) {
  MutexLock lock(mu_);
  dead_.insert(worker);
  for (const auto& wire : WiresTo(worker))
    wire->OnBroken(absl::UnavailableError("connection reset"));
}

void FaultyActivationConnector::Heal(const WorkerId& worker) {
  MutexLock lock(mu_);
  dead_.erase(worker);
}

void FaultyActivationConnector::Hold(const WorkerId& worker) {
  MutexLock lock(mu_);
  for (const auto& wire : WiresTo(worker)) wire->Hold();
}

void FaultyActivationConnector::Release(const WorkerId& worker) {
  MutexLock lock(mu_);
  for (const auto& wire : WiresTo(worker)) wire->Release();
}

class FaultyKvConnector::Wire final : public KvLinkListener {
 public:
  explicit Wire(std::shared_ptr<KvLinkListener> listener) : listener_(std::move(listener)) {}
  void OnAck(const KvAckInfo& ack) override {
    MutexLock lock(mu_);
    if (listener_ != nullptr) listener_->OnAck(ack);
  }
  void OnBroken(const absl::Status& status) override {
    MutexLock lock(mu_);
    if (listener_ != nullptr) listener_->OnBroken(status);
    listener_ = nullptr;
  }
  void Close() {
    MutexLock lock(mu_);
    listener_ = nullptr;
  }
  bool broken() {
    MutexLock lock(mu_);
    return listener_ == nullptr;
  }

 private:
  Mutex mu_;
  std::shared_ptr<KvLinkListener> listener_ TANDEM_GUARDED_BY(mu_);
};

class FaultyKvConnector::Link final : public KvLink {
 public:
  Link(std::shared_ptr<Wire> wire, std::unique_ptr<KvLink> inner)
      : wire_(std::move(wire)), inner_(std::move(inner)) {}
  ~Link() override { wire_->Close(); }
  void Push(KvRows frame) override {
    if (!wire_->broken()) inner_->Push(std::move(frame));
  }

 private:
  std::shared_ptr<Wire> wire_;
  std::unique_ptr<KvLink> inner_;
};

std::unique_ptr<KvLink> FaultyKvConnector::Open(const WorkerId& attention_worker,
                                                const std::string& address,
                                                std::shared_ptr<KvLinkListener> listener) {
  auto wire = std::make_shared<Wire>(std::move(listener));
  {
    MutexLock lock(mu_);
    wires_.emplace(attention_worker, wire);
  }
  auto inner = inner_.Open(attention_worker, address, wire);
  return std::make_unique<Link>(std::move(wire), std::move(inner));
}

void FaultyKvConnector::Break(const WorkerId& worker) {
  MutexLock lock(mu_);
  for (auto [it, end] = wires_.equal_range(worker); it != end; ++it) {
    if (auto wire = it->second.lock()) wire->OnBroken(absl::UnavailableError("connection reset"));
  }
}

}  // namespace tandem::test
