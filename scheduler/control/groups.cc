// FFN groups: which FFN workers serve which attention worker.

#include <algorithm>

#include "scheduler/control/state.h"
#include "scheduler/policy/ffn_group.h"

namespace tandem::control {

void Controller::State::On(const ShardLost& event) {
  Worker* attention = Find(event.worker);
  if (attention == nullptr || !attention->NeedsGroup()) return;
  Group& group = attention->group;
  if (std::find(group.holders.begin(), group.holders.end(), event.ffn_worker) ==
      group.holders.end())
    return;
  group.suspected[event.ffn_worker] = now + config.shard_suspicion;
  // Sent again even when the order stays as it is: the attention worker then dials the holder anew.
  group.shard_epochs.clear();
  workers_changed = true;
}

// Draining holders stay in a group only while no other is left and sequences still need them.
void Controller::State::AssignGroups() {
  std::vector<WorkerId> ready, draining;
  std::vector<GroupSeat> seats;
  for (const auto& [id, worker] : workers) {
    if (worker.Runs(Stage::kFfn) && !worker.Runs(Stage::kAttention)) {
      (worker.state == WorkerState::kDraining ? draining : ready).push_back(id);
    }
    if (!worker.NeedsGroup()) continue;
    GroupSeat seat{
        id, worker.group.holders.empty() ? WorkerId() : worker.group.holders.front(), {}};
    for (const auto& [suspected, until] : worker.group.suspected) seat.suspected.insert(suspected);
    seats.push_back(std::move(seat));
  }
  const bool takes_new_work = !ready.empty();
  for (const auto& [id, holders] :
       policy::AssignFfnGroups(seats, takes_new_work ? ready : draining)) {
    Worker& attention = workers.at(id);
    const bool needed = takes_new_work || attention.sequences + attention.reserving_sequences > 0;
    SetHolders(attention, needed ? holders : std::vector<WorkerId>{}, takes_new_work);
  }
}

void Controller::State::SetHolders(Worker& attention, const std::vector<WorkerId>& holders,
                                   bool takes_new_work) {
  if (!takes_new_work && attention.state == WorkerState::kReady) {
    attention.state = MustNext(kWorkerTransitions, attention.state, WorkerEvent::kGroupGone);
    attention.reason = "no FFN worker is ready";
  }
  Group& group = attention.group;
  std::vector<uint64_t> epochs;
  epochs.reserve(holders.size());
  for (const WorkerId& id : holders) epochs.push_back(workers.at(id).description.shard_epoch);
  const bool first = group.version == 0 && holders.empty();  // an empty group is where it starts
  if (first || (holders == group.holders && epochs == group.shard_epochs)) {
    // Nothing to send. A worker that lost its new work may have got it back with the same holders.
    if (takes_new_work && attention.state == WorkerState::kWaitingForGroup &&
        group.state == GroupState::kActive) {
      attention.state = MustNext(kWorkerTransitions, attention.state, WorkerEvent::kGroupReady);
      attention.reason.clear();
    }
    return;
  }
  group.state = MustNext(kGroupTransitions, group.state,
                         holders.empty() ? GroupEvent::kUnassign : GroupEvent::kAssign);
  group.holders = holders;
  group.shard_epochs = epochs;
  group.version = next_group_version++;
  SendSetGroup command;
  command.group_version = group.version;
  for (size_t i = 0; i < holders.size(); i++) {
    command.holders.push_back({holders[i], workers.at(holders[i]).description.address, epochs[i]});
  }
  Send(attention, CommandKind::kSetGroup, std::move(command), 0, group.version);
}

void Controller::State::OnGroupAnswer(Worker& attention, uint64_t version,
                                      const absl::Status& status) {
  Group& group = attention.group;
  if (version != group.version) return;  // a newer one is on its way
  group.state = MustNext(kGroupTransitions, group.state,
                         status.ok() ? GroupEvent::kAcknowledge : GroupEvent::kRefuse);
  group.in_use = status.ok() ? group.holders : std::vector<WorkerId>{};
  workers_changed = true;
  attention.changes++;
  // kFailedPrecondition: a router with a higher epoch rules the groups; this one only places
  // requests.
  const bool has_group =
      group.state == GroupState::kActive ||
      (group.state == GroupState::kRefused && absl::IsFailedPrecondition(status));
  const bool takes_new_work =
      std::any_of(group.holders.begin(), group.holders.end(), [this](const WorkerId& id) {
        const Worker* holder = Find(id);
        return holder != nullptr && holder->state == WorkerState::kReady;
      });
  if (has_group && takes_new_work && attention.state == WorkerState::kWaitingForGroup) {
    attention.state = MustNext(kWorkerTransitions, attention.state, WorkerEvent::kGroupReady);
    attention.reason.clear();
  }
  if (group.state == GroupState::kRefused && !has_group)
    attention.reason = std::string(status.message());
}

bool Controller::State::InSomeGroup(const WorkerId& ffn) const {
  for (const auto& [id, worker] : workers) {
    const Group& group = worker.group;
    if (std::find(group.holders.begin(), group.holders.end(), ffn) != group.holders.end())
      return true;
    if (std::find(group.in_use.begin(), group.in_use.end(), ffn) != group.in_use.end()) return true;
  }
  return false;
}

}  // namespace tandem::control
