#pragma once

// What the controller remembers, and its handlers. Private to scheduler/control: the .cc files
// share it by job, and controller.h is the door.

#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/control/controller.h"
#include "scheduler/control/group_machine.h"
#include "scheduler/control/request_machine.h"
#include "scheduler/control/sequence_machine.h"
#include "scheduler/control/worker_machine.h"
#include "scheduler/policy/admission.h"
#include "scheduler/view/cluster.h"

namespace tandem::control {

// The FFN group of one attention worker without FFN weights.
struct Group {
  GroupState state = GroupState::kEmpty;
  uint64_t version = 0;                   // of the newest SetGroup
  std::vector<WorkerId> holders;          // as last sent
  std::vector<uint64_t> shard_epochs;     // of the holders, as last sent
  std::vector<WorkerId> in_use;           // as last acknowledged
  std::map<WorkerId, Instant> suspected;  // reported lost, until then; they stand last
};

struct Worker {
  WorkerDescription description;
  WorkerLoad load;
  WorkerState state = WorkerState::kAbsent;
  std::string reason;  // of the state, for status
  Instant last_heartbeat;
  uint64_t changes = 0;     // rises whenever a refusal of it may no longer hold
  uint32_t unanswered = 0;  // commands
  bool drain_sent = false;
  Group group;
  // Attention. Numbers of the last heartbeat, corrected for what happened since.
  int64_t kv_blocks_free = 0;
  uint32_t reserving_blocks = 0;  // of Decodes not yet answered
  uint32_t reserving_sequences = 0;
  uint32_t sequences = 0;          // admitted, of this router
  uint32_t foreign_sequences = 0;  // of others, at the last heartbeat
  // Prefill.
  std::set<uint64_t> prompts;  // requests that hold a slot
  uint32_t foreign_prompts = 0;
  std::optional<uint64_t> full_at;  // it refused a prompt for lack of room when `changes` was this

  const WorkerId& id() const { return description.id; }
  bool Runs(Stage stage) const { return description.Runs(stage); }
  bool NeedsGroup() const { return Runs(Stage::kAttention) && !Runs(Stage::kFfn); }
};

struct Sequence {
  SequenceState state = SequenceState::kWaiting;
  GatewayId gateway;     // empty: restored from a registration
  uint64_t request = 0;  // 0: none any more
  WorkerId worker;       // the attention worker, once admitted
  uint32_t blocks = 0;   // its part of the reservation
};

struct Request {
  uint64_t number = 0;  // order of arrival, from 1
  GatewayId gateway;
  GenerateSpec spec;  // `choices` are those that the router still answers for
  RequestState state = RequestState::kQueued;
  bool at_head = false;  // resumed, or back from a worker that had no room
  Instant queued_at;
  // Of the current placement.
  ReservationId reservation;
  uint32_t placements = 0;  // numbers the reservations
  WorkerId attention,
      prefill;  // prefill: empty when the prompt has one token; `attention` when local
  std::optional<CommandId> command;  // whose answer is awaited
  uint32_t blocks = 0;
  bool prefilled_early = false;  // the worker's event overtook its answer
  // Aborted or ended while reserving. If the worker admits them it ends them; if it refuses, the
  // router does, with this reason (unset: nobody is to be told).
  std::map<SequenceKey, std::optional<EndReason>> leaving;
  std::set<WorkerId> prefill_tried;         // each gets one try for a reservation
  std::map<WorkerId, uint64_t> refused_by;  // worker: its `changes` at that time

  SequenceKey Key(const ChoiceStart& choice) const {
    return {spec.request, choice.choice, choice.attempt};
  }
  bool local() const { return prefill == attention; }
};

enum class CommandKind { kDecode, kPrefill, kRelease, kSetGroup, kDrain };

struct PendingCommand {
  CommandKind kind = CommandKind::kRelease;
  WorkerId worker;
  Instant deadline;
  uint64_t request = 0;        // kDecode, kPrefill
  uint64_t group_version = 0;  // kSetGroup
};

struct Controller::State {
  explicit State(const ControllerConfig& config) : config(config) {}

  // ---- registry.cc
  void On(const WorkerRegistered& event);
  void On(const WorkerHeartbeat& event);
  void On(const WorkerLost& event);
  void On(const DrainRequested& event);
  void Refuse(const WorkerRegistered& event, absl::Status status);
  void Restore(Worker& worker);
  void LoseWorker(const WorkerId& id, const std::string& reason);
  void StartDrain(Worker& worker, const std::string& reason);
  void SendDrainsThatAreDue();
  void CloseAndLose(const WorkerId& id, const std::string& reason);
  void ExpireLeases();
  Worker* Find(const WorkerId& id);
  Worker* Find(const WorkerId& id, uint64_t incarnation);

  // ---- groups.cc
  void On(const ShardLost& event);
  void AssignGroups();
  std::string WhatReadyHoldersLack() const;
  // `gap`: what WhatReadyHoldersLack says.
  void SetHolders(Worker& attention, const std::vector<WorkerId>& holders, const std::string& gap);
  void OnGroupAnswer(Worker& attention, uint64_t version, const absl::Status& status);
  bool InSomeGroup(const WorkerId& ffn) const;

  // ---- requests.cc
  void On(const GatewayConnected& event);
  void On(const GatewayLost& event);
  void On(const GenerateArrived& event);
  void On(const AbortArrived& event);
  void On(const SequenceEnded& event);
  void On(const SequencePrefilled& event);
  void EndOlderAttempts(const GenerateArrived& event);
  bool AnswerDuplicate(const GenerateArrived& event);
  void RemoveChoice(Request& request, const SequenceKey& key);
  void AbortChoice(const SequenceKey& key, EndReason reason, bool tell);
  void EndRequest(Request& request, EndReason reason, const absl::Status& status);
  void Forget(const SequenceKey& key, SequenceEvent why);
  void Tell(const GatewayId& gateway, const SequenceKey& key, EndReason reason,
            const absl::Status& status);
  void ExpireQueue();
  policy::QueueView QueueNow() const;

  // ---- placement.cc
  void PlaceQueued();
  bool PlaceFront(Request& request);
  std::optional<std::pair<WorkerId, WorkerId>> Choose(const Request& request);
  std::optional<WorkerId> ChoosePrefill(const Request& request);
  void SendDecodeTo(Request& request, Worker& attention, const WorkerId& prefill);
  void OnDecodeAnswer(Request& request, const absl::Status& status);
  void OnAdmitted(Request& request, bool already_there);
  void OnPrefillAnswer(Request& request, const absl::Status& status);
  void StartPrefill(Request& request);
  void NextPrefillWorker(Request& request, const absl::Status& why);
  void FinishPrefill(Request& request);
  void GiveBack(Request& request, const absl::Status& why);
  void Requeue(Request& request);
  void ReleaseSlot(Request& request);
  Duration LeaseBehind(const WorkerId& prefill) const;
  void SettleDecode(Request& request);
  void EndLeaving(Request& request);
  bool FreeSlot(const Worker& worker) const;
  void DropRequest(Request& request, RequestEvent event);

  // ---- controller.cc
  void On(const CommandAnswered& event);
  void On(const TimePassed& event);
  template <typename C>
  CommandId Send(Worker& worker, CommandKind kind, C command, uint64_t request = 0,
                 uint64_t group_version = 0);
  void SendReleaseTo(const WorkerId& worker, const ReservationId& reservation,
                     std::vector<SequenceKey> sequences, EndReason reason);

  // ---- cluster_state.cc
  void TellClusterStateIfChanged();
  TellClusterState ClusterStateNow() const;
  std::string WhyNotReady() const;
  bool TakesNewWork(
      const Worker& attention) const;  // attention: ready, and somebody can prefill for it
  std::string TopologyOf(const Worker& attention) const;  // "colocated", "pd", "afd" or "pd-afd"
  AttentionView View(const Worker& attention) const;
  ControllerSnapshot Snapshot() const;

  ControllerConfig config;
  Instant now;
  std::vector<Command> out;
  uint64_t next_command = 1, next_request = 1, next_group_version = 1;

  std::set<GatewayId> gateways;
  std::map<WorkerId, Worker> workers;
  std::map<uint64_t, Request> requests;  // queued, reserving or prefilling
  std::set<std::pair<bool, uint64_t>>
      queue;  // (stands behind the head class, number): the order of placement
  std::map<SequenceKey, Sequence> sequences;
  uint32_t placed_sequences = 0;                // admitted or decoding
  std::map<CommandId, PendingCommand> pending;  // oldest first
  bool workers_changed = false;  // TellClusterState and the groups may have to change
  TellClusterState told;         // the last one, without gateways
  Instant not_ready_since;
  Instant last_placement = Instant::Never();
  Duration placement_interval;  // mean of the recent ones, weight 1/8
};

template <typename C>
CommandId Controller::State::Send(Worker& worker, CommandKind kind, C command, uint64_t request,
                                  uint64_t group_version) {
  const CommandId id{next_command++};
  pending[id] = {kind, worker.id(), now + config.command_timeout, request, group_version};
  worker.unanswered++;
  command.worker = worker.id();
  command.command = id;
  out.push_back(std::move(command));
  return id;
}

}  // namespace tandem::control
