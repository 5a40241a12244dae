#include "services/router/router_core.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <type_traits>
#include <utility>
#include <variant>

namespace tandem::router {

ClusterLoad LoadOf(const control::ControllerSnapshot& snapshot) {
  ClusterLoad load;
  load.queued_requests = snapshot.queued_requests;
  load.running_sequences = snapshot.live_sequences;
  for (const control::WorkerSnapshot& worker : snapshot.workers) {
    if (!worker.description.Runs(Stage::kAttention)) continue;
    const WorkerCapacity& capacity = worker.description.capacity;
    load.kv_blocks += capacity.kv_blocks;
    load.kv_blocks_free += std::min(worker.load.kv_blocks_free, capacity.kv_blocks);
    load.block_tokens = load.block_tokens == 0 ? capacity.block_tokens
                                               : std::min(load.block_tokens, capacity.block_tokens);
  }
  return load;
}

RouterCore::RouterCore(const RouterCoreConfig& config, TimeSource& time,
                       std::vector<RouterObserver*> observers)
    : config_(config),
      time_(time),
      observers_(std::move(observers)),
      controller_(config.controller),
      snapshot_(std::make_shared<control::ControllerSnapshot>(controller_.Snapshot())) {
  strand_ = std::thread([this] { Run(); });
}

RouterCore::~RouterCore() {
  {
    MutexLock lock(mu_);
    stopping_ = true;
    wake_.NotifyAll();
  }
  strand_.join();
}

void RouterCore::Post(Task task) {
  MutexLock lock(mu_);
  if (stopping_) return;
  tasks_.push_back(std::move(task));
  wake_.NotifyOne();
}

void RouterCore::Run() {
  for (;;) {
    std::deque<Task> batch;
    bool time_passed = false;
    {
      MutexLock lock(mu_);
      while (tasks_.empty() && !alarm_fired_ && !stopping_) wake_.Wait(lock);
      if (stopping_) break;
      batch.swap(tasks_);
      time_passed = std::exchange(alarm_fired_, false);
    }
    if (time_passed) {
      armed_ = Instant::Never();
      if (controller_.NextDeadline() <= time_.Now()) Handle(control::TimePassed{});
    }
    for (Task& task : batch) task();
    PublishIfDue();
    TellLoadIfDue();
    ArmAlarm();
  }
  if (armed_ != Instant::Never()) {
    // An alarm that cannot be cancelled is running, or has run: wait until it has let `this` go.
    if (!time_.Cancel(alarm_)) {
      MutexLock lock(mu_);
      while (!alarm_fired_) wake_.Wait(lock);
    }
  }
}

// One alarm, for the controller's deadline, the snapshot or the load, whichever is first.
void RouterCore::ArmAlarm() {
  Instant due = controller_.NextDeadline();
  if (changed_) due = std::min(due, published_at_ + config_.snapshot_interval);
  if (load_ != told_load_ && !gateways_.empty())
    due = std::min(due, load_told_at_ + config_.load_interval);
  if (due == armed_) return;
  if (armed_ != Instant::Never() && !time_.Cancel(alarm_))
    return;  // it fires now, and arms the next
  armed_ = due;
  if (due == Instant::Never()) return;
  alarm_ = time_.CallAt(due, [this] {
    MutexLock lock(mu_);
    alarm_fired_ = true;
    wake_.NotifyAll();
  });
}

void RouterCore::PublishIfDue() {
  const Instant now = time_.Now();
  if (!changed_ || (!draining_ && now < published_at_ + config_.snapshot_interval)) return;
  changed_ = false;
  published_at_ = now;
  auto snapshot = std::make_shared<const control::ControllerSnapshot>(controller_.Snapshot());
  for (RouterObserver* observer : observers_) observer->Published(*snapshot);
  load_ = LoadOf(*snapshot);
  MutexLock lock(mu_);
  if (draining_ && snapshot->open_requests == 0) {
    is_drained_ = true;
    drained_.NotifyAll();
  }
  snapshot_ = std::move(snapshot);
}

void RouterCore::TellLoadIfDue() {
  const Instant now = time_.Now();
  if (load_ == told_load_ || now < load_told_at_ + config_.load_interval) return;
  told_load_ = load_;
  load_told_at_ = now;
  for (const auto& [id, gateway] : gateways_) gateway->Send(load_);
}

void RouterCore::Handle(const control::Event& event) {
  const Instant now = time_.Now();
  const std::vector<control::Command> commands = controller_.Handle(event, now);
  changed_ = true;
  for (RouterObserver* observer : observers_) observer->Handled(event, commands, now);
  for (const control::Command& command : commands) Dispatch(command);
}

void RouterCore::Dispatch(const control::Command& command) {
  std::visit(
      [&](const auto& c) {
        using C = std::decay_t<decltype(c)>;
        if constexpr (std::is_same_v<C, control::AnswerRegistration> ||
                      std::is_same_v<C, control::CloseWorker> ||
                      std::is_same_v<C, control::TellClusterState>) {
          Deliver(c);
        } else if constexpr (std::is_same_v<C, control::TellPlaced> ||
                             std::is_same_v<C, control::TellEnd>) {
          SendToGateway(c.gateway, command);
        } else {
          SendToWorker(c.worker, command);
        }
      },
      command);
}

void RouterCore::Deliver(const control::AnswerRegistration& answer) {
  if (registering_ == nullptr || registering_->worker() != answer.worker) return;
  if (answer.status.ok()) workers_[answer.worker] = registering_;
  registering_->Send(answer);
}

void RouterCore::Deliver(const control::CloseWorker& close) {
  const auto found = workers_.find(close.worker);
  if (found == workers_.end() || found->second->incarnation() != close.incarnation) return;
  const std::shared_ptr<WorkerLink> link = std::move(found->second);
  workers_.erase(found);
  link->Close(absl::AbortedError(close.reason));
}

void RouterCore::Deliver(const control::TellClusterState& state) {
  for (const GatewayId& gateway : state.gateways) SendToGateway(gateway, state);
}

void RouterCore::SendToWorker(const WorkerId& worker, const control::Command& command) {
  if (const auto found = workers_.find(worker); found != workers_.end())
    found->second->Send(command);
}

void RouterCore::SendToGateway(const GatewayId& gateway, const control::Command& command) {
  if (const auto found = gateways_.find(gateway); found != gateways_.end())
    found->second->Send(command);
}

bool RouterCore::IsCurrent(const WorkerLink& link) const {
  const auto found = workers_.find(link.worker());
  return found != workers_.end() && found->second.get() == &link;
}

void RouterCore::WorkerConnected(std::shared_ptr<WorkerLink> link, WorkerDescription worker,
                                 Taken taken) {
  Post([this, link = std::move(link), worker = std::move(worker),
        taken = std::move(taken)]() mutable {
    const auto old = workers_.find(link->worker());
    if (old != workers_.end() && old->second->incarnation() == link->incarnation()) {
      const std::string reason =
          absl::StrCat("worker ", link->worker().value(), " registered again");
      old->second->Close(absl::AbortedError(reason));
      workers_.erase(old);
      Handle(control::WorkerLost{link->worker(), link->incarnation(), reason});
    }
    registering_ = link;
    Handle(control::WorkerRegistered{std::move(worker)});
    registering_ = nullptr;
    taken();
  });
}

void RouterCore::WorkerSaid(std::shared_ptr<WorkerLink> link, control::Event event, Taken taken) {
  Post(
      [this, link = std::move(link), event = std::move(event), taken = std::move(taken)]() mutable {
        if (IsCurrent(*link)) Handle(event);
        taken();
      });
}

void RouterCore::WorkerDisconnected(std::shared_ptr<WorkerLink> link, std::string reason) {
  Post([this, link = std::move(link), reason = std::move(reason)] {
    if (!IsCurrent(*link)) return;
    workers_.erase(link->worker());
    Handle(control::WorkerLost{link->worker(), link->incarnation(), reason});
  });
}

void RouterCore::GatewayConnected(std::shared_ptr<GatewayLink> link, Taken taken) {
  Post([this, link = std::move(link), taken = std::move(taken)]() mutable {
    std::shared_ptr<GatewayLink>& current = gateways_[link->gateway()];
    if (current != nullptr) {
      current->Close(absl::AbortedError(
          absl::StrCat("gateway ", link->gateway().value(), " connected again")));
      current = nullptr;
      Handle(control::GatewayLost{link->gateway()});
    }
    current = link;
    Handle(control::GatewayConnected{link->gateway()});
    link->Send(told_load_);
    taken();
  });
}

void RouterCore::GatewaySaid(std::shared_ptr<GatewayLink> link, control::Event event, Taken taken) {
  Post(
      [this, link = std::move(link), event = std::move(event), taken = std::move(taken)]() mutable {
        const auto found = gateways_.find(link->gateway());
        if (found != gateways_.end() && found->second == link) {
          const auto* generate = std::get_if<control::GenerateArrived>(&event);
          if (draining_ && generate != nullptr) {
            RefuseWhileDraining(*generate);
          } else {
            Handle(event);
          }
        }
        taken();
      });
}

void RouterCore::RefuseWhileDraining(const control::GenerateArrived& event) {
  std::vector<control::Command> commands;
  for (const ChoiceStart& choice : event.spec.choices) {
    commands.push_back(control::TellEnd{
        event.gateway,
        {event.spec.request, choice.choice, choice.attempt},
        {EndReason::kFailed,
         absl::UnavailableError("the router is draining: it takes no new requests")},
        config_.drain_retry_after});
  }
  for (RouterObserver* observer : observers_) observer->Handled(event, commands, time_.Now());
  for (const control::Command& command : commands) SendToGateway(event.gateway, command);
}

void RouterCore::GatewayDisconnected(std::shared_ptr<GatewayLink> link) {
  Post([this, link = std::move(link)] {
    const auto found = gateways_.find(link->gateway());
    if (found == gateways_.end() || found->second != link) return;
    gateways_.erase(found);
    Handle(control::GatewayLost{link->gateway()});
  });
}

void RouterCore::DrainWorker(WorkerId worker, absl::AnyInvocable<void(absl::Status)> done) {
  Post([this, worker = std::move(worker), done = std::move(done)]() mutable {
    if (!workers_.contains(worker)) {
      done(absl::NotFoundError(absl::StrCat("worker ", worker.value(), " is not registered")));
      return;
    }
    Handle(control::DrainRequested{worker});
    done(absl::OkStatus());
  });
}

void RouterCore::StartDrain() {
  Post([this] {
    draining_ = true;
    changed_ = true;
  });
}

bool RouterCore::WaitUntilDrained(Duration limit) {
  // The limit is an alarm of the time source, not a wait of the machine's: tests hold the clock.
  const AlarmId alarm = time_.CallAt(time_.Now() + limit, [this] {
    MutexLock lock(mu_);
    drain_limit_passed_ = true;
    drained_.NotifyAll();
  });
  bool drained = false;
  {
    MutexLock lock(mu_);
    while (!is_drained_ && !drain_limit_passed_) drained_.Wait(lock);
    drained = is_drained_;
  }
  if (!time_.Cancel(alarm)) {
    MutexLock lock(mu_);
    while (!drain_limit_passed_) drained_.Wait(lock);
  }
  return drained;
}

std::shared_ptr<const control::ControllerSnapshot> RouterCore::Snapshot() const {
  MutexLock lock(mu_);
  return snapshot_;
}

}  // namespace tandem::router
