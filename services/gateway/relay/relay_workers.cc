// The relay's attention workers: whose stream stands, how long a lost one is waited for, what has
// been acknowledged.

#include <utility>

#include "services/gateway/relay/relay.h"

namespace tandem::gateway {

std::vector<ResumePoint> Relay::ResumePoints(const WorkerId& worker) {
  MutexLock lock(mu_);
  std::vector<ResumePoint> points;
  for (auto& [id, request] : requests_) {
    for (Choice& choice : request.choices) {
      if (choice.state != RelayState::kStreaming || choice.worker != worker) continue;
      points.push_back({{request.spec.request, choice.start.choice, choice.start.attempt},
                        static_cast<uint32_t>(choice.start.emitted_ids.size())});
    }
  }
  return points;
}

void Relay::WorkerUp(const WorkerId& worker) {
  MutexLock lock(mu_);
  const auto found = workers_.find(worker);
  if (found == workers_.end()) return;
  found->second.up = true;
  found->second.up_at = time_.Now();
  found->second.heard = false;
  found->second.epoch = ++epochs_;
  found->second.received_step = found->second.acknowledged_step = 0;
}

void Relay::WorkerDown(const WorkerId& worker, const absl::Status& why) {
  MutexLock lock(mu_);
  const auto found = workers_.find(worker);
  if (found == workers_.end() || !found->second.up)
    return;  // a dial that failed: the lease runs already
  Worker& lost = found->second;
  lost.up = false;
  lost.epoch = ++epochs_;
  // A sequence that came there since lives on: it is stopped when its tokens come.
  if (IsGatewayOverloaded(why)) GiveUp(worker, why);
  // A stream that breaks as it opens is no stream: the lease of the one before runs on.
  if (lost.heard || time_.Now() - lost.up_at >= lease_) lost.give_up_at = Instant::Never();
  if (lost.give_up_at == Instant::Never()) lost.give_up_at = time_.Now() + lease_;
  WatchWorker(worker, lost.give_up_at);
}

void Relay::Tokens(const WorkerId& worker, TokenBatch batch) {
  MutexLock lock(mu_);
  const auto found = workers_.find(worker);
  if (found == workers_.end()) return;
  found->second.received_step = batch.step;
  found->second.heard = true;
  bool ends = false;  // a worker that drains waits until its last message is acknowledged
  for (SequenceTokens& part : batch.sequences) {
    ends |= part.result.has_value();
    Take(worker, part);
  }
  Acknowledge(found->second, ends);
}

Relay::Worker* Relay::FindWorker(const Endpoint& endpoint) {
  const auto found = workers_.find(endpoint.worker);
  if (found == workers_.end() && workers_.size() >= config_.max_workers) return nullptr;
  Worker& worker = workers_[endpoint.worker];
  if (worker.link == nullptr) worker.link = dialer_.Link(endpoint.worker);
  if (worker.address != endpoint.address) {
    worker.address = endpoint.address;
    worker.link->Dial(endpoint.address);
  }
  return &worker;
}

// Dials who the routers name, so that the first Placed finds a stream; lets go of who is gone and
// unused.
void Relay::ListWorkers() {
  for (auto& [id, worker] : workers_) worker.listed = false;
  for (const Router& router : routers_) {
    if (!router.up) continue;
    for (const Endpoint& endpoint : router.cluster.attention_workers) {
      if (Worker* worker = FindWorker(endpoint); worker != nullptr) worker->listed = true;
    }
  }
  std::vector<WorkerId> unlisted;
  for (const auto& [id, worker] : workers_) {
    if (!worker.listed) unlisted.push_back(id);
  }
  for (const WorkerId& id : unlisted) ForgetIfUnused(id);
}

void Relay::WatchWorker(const WorkerId& worker, Instant give_up_at) {
  const uint64_t epoch = workers_.at(worker).epoch;
  time_.CallAt(give_up_at, [weak = weak_from_this(), worker, epoch] {
    if (const auto self = weak.lock()) self->WorkerLost(worker, epoch);
  });
}

// The lease is over and the stream did not come back: its sequences start again elsewhere.
void Relay::WorkerLost(const WorkerId& worker, uint64_t epoch) {
  MutexLock lock(mu_);
  const auto found = workers_.find(worker);
  if (found == workers_.end() || found->second.up || found->second.epoch != epoch) return;
  found->second.give_up_at = Instant::Never();
  GiveUp(worker, absl::OkStatus());
  ForgetIfUnused(worker);
  PlaceAll();
}

void Relay::GiveUp(const WorkerId& worker, const absl::Status& why) {
  for (auto entry = requests_.begin(); entry != requests_.end();) {
    const auto current = entry++;
    for (Choice& choice : current->second.choices) {
      if (choice.state != RelayState::kStreaming || choice.worker != worker) continue;
      if (why.ok()) {
        Resume(current->second, choice, RelayEvent::kWorkerLost);
      } else {
        Fail(current->second, choice, why);
      }
    }
    Sweep(current);
  }
}

void Relay::ForgetIfUnused(const WorkerId& id) {
  const auto found = workers_.find(id);
  if (found == workers_.end() || found->second.listed) return;
  for (const auto& [name, request] : requests_) {
    for (const Choice& choice : request.choices) {
      if (choice.state == RelayState::kStreaming && choice.worker == id) return;
    }
  }
  workers_.erase(found);
  dialer_.Forget(id);
}

void Relay::Acknowledge(Worker& worker, bool now) {
  const uint64_t behind = worker.received_step - worker.acknowledged_step;
  if (behind == 0 || (!now && behind < config_.ack_interval)) return;
  worker.acknowledged_step = worker.received_step;
  worker.link->Acknowledge(worker.received_step);
}

}  // namespace tandem::gateway
