#include "scheduler/control/controller.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/control/state.h"

namespace tandem::control {

Controller::Controller(const ControllerConfig& config) : state_(std::make_unique<State>(config)) {
  state_->told = state_->ClusterStateNow();
}

Controller::~Controller() = default;

std::vector<Command> Controller::Handle(const Event& event, Instant now) {
  TANDEM_CHECK(now >= state_->now);
  const Instant due = NextDeadline();
  state_->now = now;
  // Late by more than a lease: this process was frozen, so the others' silence says nothing. It
  // renews before it judges.
  if (due != Instant::Never() && now - due > state_->config.worker_lease) {
    for (auto& [id, worker] : state_->workers) worker.last_heartbeat = now;
    for (auto& [id, command] : state_->pending)
      command.deadline = now + state_->config.command_timeout;
  }
  std::visit([this](const auto& e) { state_->On(e); }, event);
  if (state_->workers_changed) {
    state_->workers_changed = false;
    state_->AssignGroups();
    state_->SendDrainsThatAreDue();
    state_->TellClusterStateIfChanged();
  }
  state_->PlaceQueued();
  return std::exchange(state_->out, {});
}

Instant Controller::NextDeadline() const {
  Instant next = Instant::Never();
  for (const auto& [id, worker] : state_->workers) {
    next = std::min(next, worker.last_heartbeat + state_->config.worker_lease);
  }
  if (!state_->pending.empty()) next = std::min(next, state_->pending.begin()->second.deadline);
  if (!state_->told.ready) {
    for (const auto& [behind, number] : state_->queue) {
      const Instant since =
          std::max(state_->requests.at(number).queued_at, state_->not_ready_since);
      next = std::min(next, since + state_->config.queue_timeout);
    }
  }
  return next;
}

ControllerSnapshot Controller::Snapshot() const { return state_->Snapshot(); }

void Controller::State::On(const CommandAnswered& event) {
  Worker* worker = Find(event.worker, event.incarnation);
  const auto found = pending.find(event.command);
  if (worker == nullptr || found == pending.end() || found->second.worker != event.worker) return;
  const PendingCommand command = found->second;
  pending.erase(found);
  worker->unanswered--;
  const auto request = requests.find(command.request);
  const bool awaited = request != requests.end() && request->second.command == event.command;
  switch (command.kind) {
    case CommandKind::kDecode:
      if (awaited) OnDecodeAnswer(request->second, event.status);
      break;
    case CommandKind::kPrefill:
      if (awaited) OnPrefillAnswer(request->second, event.status);
      break;
    case CommandKind::kSetGroup:
      OnGroupAnswer(*worker, command.group_version, event.status);
      break;
    case CommandKind::kRelease:
    case CommandKind::kDrain:
      break;
  }
}

void Controller::State::On(const TimePassed&) {
  while (!pending.empty() && pending.begin()->second.deadline <= now) {
    const auto [id, command] = *pending.begin();
    CloseAndLose(command.worker,
                 absl::StrCat("command ", static_cast<uint64_t>(id), " was not answered for ",
                              config.command_timeout.seconds(), " s"));
  }
  ExpireLeases();
  ExpireQueue();
}

void Controller::State::SendReleaseTo(const WorkerId& worker, const ReservationId& reservation,
                                      std::vector<SequenceKey> keys, EndReason reason) {
  Worker* to = Find(worker);
  if (to == nullptr) return;
  SendRelease release;
  release.reservation = reservation;
  release.sequences = std::move(keys);
  release.reason = reason;
  Send(*to, CommandKind::kRelease, std::move(release));
}

}  // namespace tandem::control
