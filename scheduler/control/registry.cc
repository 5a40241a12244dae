// Workers come, say that they live, and go.

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/control/registration_check.h"
#include "scheduler/control/state.h"

namespace tandem::control {

Worker* Controller::State::Find(const WorkerId& id) {
  const auto found = workers.find(id);
  return found == workers.end() ? nullptr : &found->second;
}

Worker* Controller::State::Find(const WorkerId& id, uint64_t incarnation) {
  Worker* worker = Find(id);
  return worker != nullptr && worker->description.incarnation == incarnation ? worker : nullptr;
}

void Controller::State::Refuse(const WorkerRegistered& event, absl::Status status) {
  out.push_back(AnswerRegistration{event.worker.id, event.worker.incarnation, std::move(status)});
}

void Controller::State::On(const WorkerRegistered& event) {
  const WorkerDescription& worker = event.worker;
  std::vector<const WorkerDescription*> members;
  for (const auto& [id, other] : workers) {
    if (id != worker.id) members.push_back(&other.description);
  }
  if (absl::Status fits = CheckRegistration(worker, config.model, members); !fits.ok())
    return Refuse(event, fits);
  if (members.size() >= config.max_workers) {
    return Refuse(event, absl::ResourceExhaustedError(absl::StrCat(
                             "worker ", worker.id.value(), ": ", members.size(),
                             " workers are registered; max_workers is ", config.max_workers)));
  }
  if (const Worker* old = Find(worker.id); old != nullptr) {
    const uint64_t known = old->description.incarnation;
    if (known > worker.incarnation) {
      return Refuse(event, absl::FailedPreconditionError(absl::StrCat(
                               "worker ", worker.id.value(), ": incarnation ", worker.incarnation,
                               " is older than ", known, ", which is registered")));
    }
    const std::string reason =
        absl::StrCat("incarnation ", worker.incarnation, " replaces ", known);
    if (known < worker.incarnation) {
      CloseAndLose(worker.id, reason);
    } else {
      LoseWorker(worker.id, reason);
    }
  }
  Worker& added = workers[worker.id];
  added.description = worker;
  added.description.shard = ResolveShard(worker.shard, worker.dimensions.layers);
  added.last_heartbeat = now;
  added.kv_blocks_free = worker.capacity.kv_blocks;
  added.state =
      MustNext(kWorkerTransitions, added.state,
               added.NeedsGroup() ? WorkerEvent::kRegisterNeedsGroup : WorkerEvent::kRegister);
  if (added.NeedsGroup()) added.reason = "no FFN group yet";
  workers_changed = true;
  out.push_back(AnswerRegistration{worker.id, worker.incarnation, absl::OkStatus()});
  Restore(added);
}

// Takes over the sequences that the worker holds: placed by a router before this one, or before its
// stream broke.
void Controller::State::Restore(Worker& worker) {
  for (const SequenceKey& key : worker.description.live) {
    const auto newest = sequences.lower_bound(key);
    if (newest != sequences.end() && newest->first.request == key.request &&
        newest->first.choice == key.choice) {
      // Its stream broke before it answered, and the sequence is queued or placed elsewhere; or a
      // newer attempt is.
      SendReleaseTo(worker.id(), ReservationId(), {key}, EndReason::kSuperseded);
      continue;
    }
    if (placed_sequences >= config.max_sequences) continue;
    Sequence& sequence = sequences[key];
    sequence.state = MustNext(kSequenceTransitions, sequence.state, SequenceEvent::kRestore);
    sequence.worker = worker.id();
    worker.sequences++;
    placed_sequences++;
  }
  worker.description.live.clear();
}

void Controller::State::On(const WorkerHeartbeat& event) {
  Worker* worker = Find(event.worker, event.incarnation);
  if (worker == nullptr) return;
  const auto beyond = [](uint32_t told, size_t own) {
    return told > own ? static_cast<uint32_t>(told - own) : 0;
  };
  worker->last_heartbeat = now;
  worker->load = event.load;
  worker->changes++;
  worker->kv_blocks_free = int64_t{event.load.kv_blocks_free} - worker->reserving_blocks;
  worker->foreign_sequences =
      beyond(event.load.sequences, worker->sequences + worker->reserving_sequences);
  worker->foreign_prompts = beyond(event.load.prefills, worker->prompts.size());
  if (event.load.draining && worker->state != WorkerState::kDraining)
    StartDrain(*worker, "the worker is draining");
  const auto expired = [this](const auto& suspected) { return suspected.second <= now; };
  if (std::erase_if(worker->group.suspected, expired) > 0) workers_changed = true;
}

void Controller::State::On(const WorkerLost& event) {
  if (Find(event.worker, event.incarnation) != nullptr) LoseWorker(event.worker, event.reason);
}

void Controller::State::CloseAndLose(const WorkerId& id, const std::string& reason) {
  const Worker* worker = Find(id);
  TANDEM_CHECK(worker != nullptr);
  out.push_back(CloseWorker{id, worker->description.incarnation, reason});
  LoseWorker(id, reason);
}

// PROTOCOL section 5: what was on its way to the worker goes elsewhere; what it decodes is the
// gateway's to resume.
void Controller::State::LoseWorker(const WorkerId& id, const std::string& reason) {
  Worker& worker = workers.at(id);
  worker.state = MustNext(kWorkerTransitions, worker.state, WorkerEvent::kLose);
  std::erase_if(pending, [&](const auto& command) { return command.second.worker == id; });
  std::vector<uint64_t> reserving, here, prefilling;
  for (const auto& [number, request] : requests) {
    if (request.attention == id && request.state == RequestState::kReserving)
      reserving.push_back(number);
    if (request.attention == id && request.state == RequestState::kPrefilling)
      here.push_back(number);
    if (request.prefill == id && !request.local() && request.state == RequestState::kPrefilling)
      prefilling.push_back(number);
  }
  for (const uint64_t number : reserving) {
    SettleDecode(requests.at(number));
    Requeue(requests.at(number));
  }
  for (const uint64_t number : here) DropRequest(requests.at(number), RequestEvent::kFinish);
  std::vector<SequenceKey> lost;
  for (const auto& [key, sequence] : sequences) {
    if (sequence.worker == id) lost.push_back(key);
  }
  for (const SequenceKey& key : lost) Forget(key, SequenceEvent::kLost);
  workers.erase(id);
  for (auto& [other, w] : workers) w.group.suspected.erase(id);
  workers_changed = true;
  for (const uint64_t number : prefilling) {
    NextPrefillWorker(requests.at(number), absl::UnavailableError(absl::StrCat(
                                               "prefill worker ", id.value(), ": ", reason)));
  }
}

void Controller::State::On(const DrainRequested& event) {
  Worker* worker = Find(event.worker);
  if (worker != nullptr && worker->state != WorkerState::kDraining)
    StartDrain(*worker, "drain was asked for");
}

void Controller::State::StartDrain(Worker& worker, const std::string& reason) {
  worker.state = MustNext(kWorkerTransitions, worker.state, WorkerEvent::kDrain);
  worker.reason = reason;
  workers_changed = true;
}

// An FFN worker leaves when no attention worker uses it any more; any other finishes what it holds,
// by itself.
void Controller::State::SendDrainsThatAreDue() {
  for (auto& [id, worker] : workers) {
    if (worker.state != WorkerState::kDraining || worker.drain_sent) continue;
    if (worker.Runs(Stage::kFfn) && !worker.Runs(Stage::kAttention) && InSomeGroup(id)) continue;
    worker.drain_sent = true;
    Send(worker, CommandKind::kDrain, SendDrain{});
  }
}

void Controller::State::ExpireLeases() {
  std::vector<WorkerId> silent;
  for (const auto& [id, worker] : workers) {
    if (worker.last_heartbeat + config.worker_lease <= now) silent.push_back(id);
  }
  for (const WorkerId& id : silent) {
    CloseAndLose(id, absl::StrCat("no heartbeat for ", config.worker_lease.seconds(), " s"));
  }
}

}  // namespace tandem::control
