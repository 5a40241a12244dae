#include "workers/engine/ffn_group.h"

#include <algorithm>

#include "scheduler/base/check.h"
#include "workers/connector/own_copy.h"

namespace tandem {

// Brings a link's words to the device. The mailbox refuses them once the engine has stopped, so the
// group outlives them.
class FfnGroup::Listener final : public FfnLinkListener {
 public:
  Listener(FfnGroup& group, std::shared_ptr<Mailbox> mailbox, WorkerId worker, uint64_t id)
      : group_(group), mailbox_(std::move(mailbox)), worker_(std::move(worker)), id_(id) {}

  void OnGrant(const HandoffGrantInfo& grant) override {
    mailbox_->PostBounded(
        [&group = group_, worker = worker_, id = id_, grant](const absl::Status& posted) {
          if (posted.ok()) group.OnGrant(worker, id, grant);
        });
  }
  void OnReply(F2a reply) override {
    const Instant due = group_.context_.line.Due(reply.arrives_at);
    reply.arrives_at = due != Instant() ? due : group_.context_.Now();  // the device may be busy
    mailbox_->PostBoundedAt(due, [&group = group_, worker = worker_, id = id_,
                                  reply = std::move(reply)](const absl::Status& posted) mutable {
      if (posted.ok()) group.OnReply(worker, id, reply);
    });
  }
  void OnBroken(const absl::Status& status) override {
    mailbox_->PostBounded([&group = group_, worker = worker_, id = id_,
                           status = OwnCopy(status)](const absl::Status& posted) {
      if (posted.ok()) group.OnBroken(worker, id, status);
    });
  }

 private:
  FfnGroup& group_;
  const std::shared_ptr<Mailbox> mailbox_;
  const WorkerId worker_;
  const uint64_t id_;
};

FfnGroup::FfnGroup(EngineContext& context, ActivationConnector& connector, uint32_t max_rows,
                   Callbacks callbacks)
    : context_(context),
      connector_(connector),
      max_rows_(max_rows),
      callbacks_(std::move(callbacks)) {}

void FfnGroup::SetGroup(std::vector<FfnEndpoint> holders, Answer switched) {
  for (auto& [worker, holder] : holders_) holder.in_group = false;
  for (FfnEndpoint& endpoint : holders) {
    const WorkerId worker = endpoint.worker;
    const auto known = holders_.find(worker);
    if (known != holders_.end()) {
      Holder& holder = known->second;
      const FfnEndpoint& old = holder.endpoint;
      if (holder.link != nullptr && old.address == endpoint.address &&
          old.shard_epoch == endpoint.shard_epoch && old.shard == endpoint.shard) {
        holder.in_group = true;
        continue;
      }
      Drop(worker, absl::UnavailableError(
                       absl::StrCat("FFN worker ", worker.value(), " is named anew: epoch ",
                                    endpoint.shard_epoch, " at ", endpoint.address)));
    }
    Holder& holder = holders_[worker];
    holder.endpoint = std::move(endpoint);
    Open(holder);
  }
  switching_.push_back(std::move(switched));
  DropLeft();
}

void FfnGroup::Open(Holder& holder) {
  const BackendInfo& info = context_.backend.info();
  HandoffHello hello;
  hello.attention_worker = context_.config.worker.value();
  hello.model = context_.config.model;
  hello.hidden = info.dimensions.hidden;
  hello.layers = info.dimensions.layers;
  hello.ffn_class = info.numerics.ffn;
  hello.shard_epoch = holder.endpoint.shard_epoch;
  hello.max_rows = max_rows_;
  hello.shard = holder.endpoint.shard;
  hello.link = context_.line.link();
  holder.id = next_id_++;
  holder.reopen_at = Instant::Never();
  holder.link = connector_.Open(
      holder.endpoint, hello,
      std::make_shared<Listener>(*this, context_.mailbox, holder.endpoint.worker, holder.id));
}

void FfnGroup::Send(const std::string& name, A2f call) {
  Holder& holder = holders_.at(WorkerId(name));
  TANDEM_CHECK(holder.up);
  call.shard_epoch = holder.endpoint.shard_epoch;
  if (holder.endpoint.worker != context_.config.worker)
    call.arrives_at = context_.line.SendA2f(call.call.layer, call.rows, holder.link_speed);
  holder.in_flight++;
  holder.link->Send(std::move(call));
}

void FfnGroup::SetLive(bool live) {
  if (std::exchange(live_, live) == live) return;
  for (auto& [worker, holder] : holders_) {
    if (holder.up) TellLive(holder);
  }
}

void FfnGroup::TellLive(Holder& holder) {
  if (holder.endpoint.worker == context_.config.worker) return;  // the same device, with sequences
  holder.link->SetLive(live_, context_.line.SendA2f(0, 0, holder.link_speed));
}

void FfnGroup::GiveUp(const std::string& name, const absl::Status& status) {
  const auto holder = holders_.find(WorkerId(name));
  if (holder != holders_.end() && holder->second.link != nullptr) Lose(holder->second, status);
  DropLeft();
}

FfnGroup::Holder* FfnGroup::Find(const WorkerId& worker, uint64_t id) {
  const auto found = holders_.find(worker);
  const bool current =
      found != holders_.end() && found->second.id == id && found->second.link != nullptr;
  return current ? &found->second : nullptr;
}

void FfnGroup::OnGrant(const WorkerId& worker, uint64_t id, const HandoffGrantInfo& grant) {
  Holder* const holder = Find(worker, id);
  if (holder == nullptr) return;
  holder->up = true;
  holder->loss_reported = false;
  holder->link_speed = grant.link;
  if (live_) TellLive(*holder);
  callbacks_.on_up(worker.value(), grant);
}

void FfnGroup::OnReply(const WorkerId& worker, uint64_t id, F2a& reply) {
  Holder* const holder = Find(worker, id);
  if (holder == nullptr || holder->in_flight == 0) {
    context_.counters.replies_dropped++;
    return;
  }
  holder->in_flight--;
  callbacks_.on_reply(worker.value(), reply);
  DropLeft();
}

void FfnGroup::OnBroken(const WorkerId& worker, uint64_t id, const absl::Status& status) {
  Holder* const holder = Find(worker, id);
  if (holder == nullptr) return;
  Lose(*holder, status);
  DropLeft();
}

void FfnGroup::Lose(Holder& holder, const absl::Status& status) {
  const WorkerId worker = holder.endpoint.worker;
  holder.link.reset();
  holder.up = false;
  holder.in_flight = 0;
  holder.reopen_at = context_.Now() + context_.config.holder_reopen_delay;
  if (!holder.loss_reported && holder.in_group) {
    holder.loss_reported = true;
    context_.counters.holders_lost++;
    context_.listener.OnShardLost(worker, holder.endpoint.shard_epoch, status.ToString());
  }
  callbacks_.on_down(worker.value(), status);
}

void FfnGroup::Drop(const WorkerId& worker, const absl::Status& status) {
  holders_.erase(worker);
  callbacks_.on_down(worker.value(), status);
}

void FfnGroup::DropLeft() {
  bool owed = false;
  std::vector<WorkerId> left;
  for (const auto& [worker, holder] : holders_) {
    if (holder.in_group) continue;
    if (holder.in_flight > 0) {
      owed = true;
    } else {
      left.push_back(worker);
    }
  }
  for (const WorkerId& worker : left) {
    Drop(worker,
         absl::UnavailableError(absl::StrCat("FFN worker ", worker.value(), " left the group")));
  }
  if (owed) return;
  std::vector<Answer> answers;
  answers.swap(switching_);
  for (Answer& answer : answers) answer(absl::OkStatus());
}

bool FfnGroup::AnyUp() const {
  return std::any_of(holders_.begin(), holders_.end(),
                     [](const auto& holder) { return holder.second.up; });
}

Instant FfnGroup::NextDeadline() const {
  Instant first = Instant::Never();
  for (const auto& [worker, holder] : holders_) first = std::min(first, holder.reopen_at);
  return first;
}

void FfnGroup::OnTime(Instant now) {
  for (auto& [worker, holder] : holders_) {
    if (holder.link == nullptr && holder.reopen_at <= now) Open(holder);
  }
}

void FfnGroup::CloseAll(const absl::Status& status) {
  std::vector<std::string> up;
  for (const auto& [worker, holder] : holders_) {
    if (holder.up) up.push_back(worker.value());
  }
  holders_.clear();
  for (const std::string& holder : up) callbacks_.on_down(holder, status);
  std::vector<Answer> answers;
  answers.swap(switching_);
  for (Answer& answer : answers) answer(OwnCopy(status));
}

}  // namespace tandem
