// FFN groups: which FFN workers serve which attention worker.

#include <absl/strings/str_cat.h>

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

// Draining holders stay in a group only while the others do not cover every layer and sequences
// still need them.
void Controller::State::AssignGroups() {
  std::vector<HolderView> ready, all;
  std::vector<GroupSeat> seats;
  for (const auto& [id, worker] : workers) {
    if (worker.Runs(Stage::kFfn) && !worker.Runs(Stage::kAttention)) {
      all.push_back({id, worker.description.shard});
      if (worker.state != WorkerState::kDraining) ready.push_back(all.back());
    }
    if (!worker.NeedsGroup()) continue;
    GroupSeat seat{id, worker.group.holders, {}};
    for (const auto& [suspected, until] : worker.group.suspected) seat.suspected.insert(suspected);
    seats.push_back(std::move(seat));
  }
  if (seats.empty()) return;
  const uint32_t layers = workers.at(seats.front().attention).description.dimensions.layers;
  const std::string gap = WhatReadyHoldersLack();
  for (const auto& [id, holders] :
       policy::AssignFfnGroups(seats, gap.empty() ? ready : all, layers)) {
    Worker& attention = workers.at(id);
    const bool needed = gap.empty() || attention.sequences + attention.reserving_sequences > 0;
    SetHolders(attention, needed ? holders : std::vector<WorkerId>{}, gap);
  }
}

// Empty: the FFN workers that are ready cover every layer.
std::string Controller::State::WhatReadyHoldersLack() const {
  std::vector<FfnShard> shards;
  uint32_t layers = 0;
  for (const auto& [id, worker] : workers) {
    layers = worker.description.dimensions.layers;  // everybody's
    if (worker.Runs(Stage::kFfn) && !worker.Runs(Stage::kAttention) &&
        worker.state == WorkerState::kReady)
      shards.push_back(worker.description.shard);
  }
  if (shards.empty()) return "no FFN worker is ready";
  const std::string gap = policy::UncoveredLayers(shards, layers);
  return gap.empty() ? gap : absl::StrCat("no ready FFN worker holds ", gap);
}

void Controller::State::SetHolders(Worker& attention, const std::vector<WorkerId>& holders,
                                   const std::string& gap) {
  const bool takes_new_work = gap.empty();
  if (!takes_new_work) {
    if (attention.state == WorkerState::kReady)
      attention.state = MustNext(kWorkerTransitions, attention.state, WorkerEvent::kGroupGone);
    if (attention.state == WorkerState::kWaitingForGroup) attention.reason = gap;
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
    const WorkerDescription& holder = workers.at(holders[i]).description;
    command.holders.push_back({holders[i], holder.address, epochs[i], holder.shard});
  }
  Send(attention, CommandKind::kSetGroup, std::move(command), 0, group.version);
  if (takes_new_work && attention.state == WorkerState::kWaitingForGroup)
    attention.reason = "it has not acknowledged its group yet";
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
  if (has_group && WhatReadyHoldersLack().empty() &&
      attention.state == WorkerState::kWaitingForGroup) {
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
