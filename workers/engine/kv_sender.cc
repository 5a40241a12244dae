#include "workers/engine/kv_sender.h"

#include <algorithm>
#include <utility>

#include "workers/connector/own_copy.h"

namespace tandem {

// Brings a link's words to the device. The mailbox refuses them once the engine has stopped, so the
// sender outlives them.
class KvSender::Listener final : public KvLinkListener {
 public:
  Listener(KvSender& sender, std::shared_ptr<Mailbox> mailbox, WorkerId worker, uint64_t id)
      : sender_(sender), mailbox_(std::move(mailbox)), worker_(std::move(worker)), id_(id) {}

  void OnAck(const KvAckInfo& theirs) override {
    KvAckInfo ack = theirs;
    ack.status = OwnCopy(theirs.status);
    const Instant due = sender_.context_.line.Due(ack.arrives_at);
    mailbox_->PostBoundedAt(due, [&sender = sender_, worker = worker_, id = id_,
                                  ack = std::move(ack)](const absl::Status& posted) {
      if (posted.ok()) sender.OnAck(worker, id, ack);
    });
  }
  void OnBroken(const absl::Status& status) override {
    mailbox_->PostBounded([&sender = sender_, worker = worker_, id = id_,
                           status = OwnCopy(status)](const absl::Status& posted) {
      if (posted.ok()) sender.OnBroken(worker, id, status);
    });
  }

 private:
  KvSender& sender_;
  const std::shared_ptr<Mailbox> mailbox_;
  const WorkerId worker_;
  const uint64_t id_;
};

KvSender::KvSender(EngineContext& context, KvConnector& connector, Callbacks callbacks)
    : context_(context), connector_(connector), callbacks_(std::move(callbacks)) {}

void KvSender::Open(const WorkerId& attention_worker, const std::string& address) {
  const auto found = links_.find(attention_worker);
  if (found != links_.end()) {
    if (found->second.address == address) return;
    OnBroken(attention_worker, found->second.id,
             absl::UnavailableError(absl::StrCat("attention worker ", attention_worker.value(),
                                                 " moved to ", address)));
  }
  Link& link = links_[attention_worker];
  link.id = next_id_++;
  link.address = address;
  link.link = connector_.Open(
      attention_worker, address,
      std::make_shared<Listener>(*this, context_.mailbox, attention_worker, link.id));
}

void KvSender::Push(const WorkerId& attention_worker, KvRows frame) {
  const auto found = links_.find(attention_worker);
  if (found == links_.end()) return;
  if (frame.cancel) return found->second.link->Push(std::move(frame));
  Span span{.kind = SpanKind::kKvSent,
            .peer = context_.trace.PeerIndex(attention_worker.value()),
            .layer = frame.layer,
            .rows = frame.count,
            .begin = context_.line.Now()};
  const Instant arrival = context_.line.SendKv(frame.count, {});
  frame.arrives_at = arrival;
  found->second.link->Push(std::move(frame));
  span.end = std::max(arrival, context_.line.Now());
  context_.trace.Add(span);
}

bool KvSender::IsCurrent(const WorkerId& worker, uint64_t id) const {
  const auto found = links_.find(worker);
  return found != links_.end() && found->second.id == id;
}

void KvSender::OnAck(const WorkerId& worker, uint64_t id, const KvAckInfo& ack) {
  if (IsCurrent(worker, id)) callbacks_.on_ack(ack);
}

void KvSender::OnBroken(const WorkerId& worker, uint64_t id, const absl::Status& status) {
  if (!IsCurrent(worker, id)) return;
  links_.erase(worker);
  callbacks_.on_broken(worker, status);
}

}  // namespace tandem
