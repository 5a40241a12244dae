// From the queue to a worker: PROTOCOL section 2.

#include "scheduler/policy/attention_placement.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/control/state.h"
#include "scheduler/policy/prefill_placement.h"

namespace tandem::control {
namespace {

AttentionDemand DemandOf(const Request& request) {
  const GenerateSpec& spec = request.spec;
  AttentionDemand demand;
  demand.start_tokens = spec.prompt_ids.size() + spec.choices.front().emitted_ids.size();
  demand.final_tokens = spec.prompt_ids.size() + uint64_t{spec.stop.max_tokens};
  demand.choices = static_cast<uint32_t>(spec.choices.size());
  return demand;
}

bool Refused(const Request& request, const Worker& worker) {
  const auto refused = request.refused_by.find(worker.id());
  return refused != request.refused_by.end() && refused->second == worker.changes;
}

}  // namespace

// In order; a request that finds no room holds up those behind it, so that none starves.
void Controller::State::PlaceQueued() {
  while (!queue.empty() && PlaceFront(requests.at(queue.begin()->second))) {}
}

// False: it stays where it is, until an event changes something.
bool Controller::State::PlaceFront(Request& request) {
  if (placed_sequences + request.spec.choices.size() > config.max_sequences) return false;
  const AttentionDemand demand = DemandOf(request);
  if (told.ready && demand.final_tokens > told.context_tokens) {
    EndRequest(
        request, EndReason::kFailed,
        absl::InvalidArgumentError(absl::StrCat(
            request.spec.prompt_ids.size(), " prompt tokens + ", request.spec.stop.max_tokens,
            " max_tokens exceed the context of ", told.context_tokens, " tokens")));
    return true;
  }
  const auto choice = Choose(request);
  if (!choice.has_value()) return false;
  SendDecodeTo(request, workers.at(choice->first), choice->second);
  return true;
}

// The attention worker and the prefill worker; the latter is empty for a prompt of one token.
std::optional<std::pair<WorkerId, WorkerId>> Controller::State::Choose(const Request& request) {
  const AttentionDemand demand = DemandOf(request);
  const bool needs_prefill = demand.start_tokens > 1;
  const std::optional<WorkerId> remote = needs_prefill ? ChoosePrefill(request) : std::nullopt;
  std::vector<AttentionView> candidates;
  for (const auto& [id, worker] : workers) {
    if (!worker.Runs(Stage::kAttention) || worker.state != WorkerState::kReady) continue;
    if (Refused(request, worker) || worker.unanswered >= config.max_unanswered_commands) continue;
    if (needs_prefill && !(worker.Runs(Stage::kPrefill) ? FreeSlot(worker) : remote.has_value()))
      continue;
    candidates.push_back(View(worker));
  }
  const std::optional<WorkerId> attention = policy::PlaceAttention(candidates, demand);
  if (!attention.has_value()) return std::nullopt;
  if (!needs_prefill) return std::pair(*attention, WorkerId());
  return std::pair(*attention, workers.at(*attention).Runs(Stage::kPrefill) ? *attention : *remote);
}

bool Controller::State::FreeSlot(const Worker& worker) const {
  return worker.full_at != worker.changes &&
         worker.prompts.size() + worker.foreign_prompts < worker.description.capacity.prefill_slots;
}

std::optional<WorkerId> Controller::State::ChoosePrefill(const Request& request) {
  std::vector<PrefillView> candidates;
  for (const auto& [id, worker] : workers) {
    if (!worker.Runs(Stage::kPrefill) || worker.Runs(Stage::kAttention) ||
        worker.state != WorkerState::kReady)
      continue;
    if (request.prefill_tried.contains(id) || !FreeSlot(worker)) continue;
    if (worker.unanswered >= config.max_unanswered_commands) continue;
    candidates.push_back({id, static_cast<uint32_t>(worker.prompts.size()) + worker.foreign_prompts,
                          worker.description.capacity.prefill_slots});
  }
  return policy::PlacePrefill(candidates);
}

// How long a reservation may wait for its first KV row: its turn at the prefill worker comes after
// the prompts in hand.
Duration Controller::State::LeaseBehind(const WorkerId& prefill) const {
  int64_t tokens = 0;
  if (const auto worker = workers.find(prefill); worker != workers.end()) {
    for (const uint64_t number : worker->second.prompts) {
      const GenerateSpec& spec = requests.at(number).spec;
      tokens += static_cast<int64_t>(spec.prompt_ids.size());
    }
  }
  return config.reservation_lease + config.reservation_lease_per_token * tokens;
}

void Controller::State::SendDecodeTo(Request& request, Worker& attention, const WorkerId& prefill) {
  if (last_placement != Instant::Never())
    placement_interval = (placement_interval * 7 + (now - last_placement)) / 8;
  last_placement = now;
  queue.erase({!request.at_head, request.number});
  request.state = MustNext(kRequestTransitions, request.state, RequestEvent::kReserve);
  request.attention = attention.id();
  request.prefill = prefill;
  request.placements++;
  const SequenceKey first = request.Key(request.spec.choices.front());
  request.reservation =
      ReservationId(absl::StrCat(ToString(first), "/", request.number, ".", request.placements));
  request.blocks =
      policy::BlocksAtStart(DemandOf(request), attention.description.capacity.block_tokens);
  attention.kv_blocks_free -= request.blocks;
  attention.reserving_blocks += request.blocks;
  attention.reserving_sequences += request.spec.choices.size();
  if (!prefill.empty()) workers.at(prefill).prompts.insert(request.number);
  SendDecode decode;
  decode.reservation = request.reservation;
  decode.gateway = request.gateway;
  decode.request = request.spec.request;
  decode.choices = request.spec.choices;
  decode.prompt_ids = request.spec.prompt_ids;
  decode.sampling = request.spec.sampling;
  decode.stop = request.spec.stop;
  decode.local_prefill = attention.Runs(Stage::kPrefill);
  if (!decode.local_prefill) decode.reservation_lease = LeaseBehind(prefill);
  request.command = Send(attention, CommandKind::kDecode, std::move(decode), request.number);
}

// The Decode is answered, or never will be: what was held for its answer is free again.
void Controller::State::SettleDecode(Request& request) {
  Worker& attention = workers.at(request.attention);
  attention.reserving_blocks -= request.blocks;
  attention.reserving_sequences -= request.spec.choices.size();
  request.command.reset();
}

void Controller::State::OnDecodeAnswer(Request& request, const absl::Status& status) {
  SettleDecode(request);
  // kAlreadyExists: a router before this one placed it there, and the gateway asks for it again.
  if (status.ok() || absl::IsAlreadyExists(status)) return OnAdmitted(request, !status.ok());
  Worker& attention = workers.at(request.attention);
  attention.kv_blocks_free += request.blocks;
  if (absl::IsResourceExhausted(status) || absl::IsUnavailable(status)) {
    request.refused_by[attention.id()] = attention.changes;
    return Requeue(request);
  }
  ReleaseSlot(request);
  EndLeaving(request);
  if (request.spec.choices.empty()) return DropRequest(request, RequestEvent::kFinish);
  // kFailedPrecondition: a higher attempt is there.
  const EndReason reason =
      absl::IsFailedPrecondition(status) ? EndReason::kSuperseded : EndReason::kFailed;
  EndRequest(request, reason, reason == EndReason::kFailed ? status : absl::OkStatus());
}

void Controller::State::OnAdmitted(Request& request, bool already_there) {
  request.state = MustNext(kRequestTransitions, request.state, RequestEvent::kAdmitted);
  Worker& attention = workers.at(request.attention);
  const uint32_t choices = static_cast<uint32_t>(request.spec.choices.size());
  for (const ChoiceStart& choice : request.spec.choices) {
    Sequence& sequence = sequences.at(request.Key(choice));
    sequence.state = MustNext(kSequenceTransitions, sequence.state, SequenceEvent::kAdmit);
    sequence.worker = request.attention;
    sequence.blocks = request.blocks / choices;
    attention.sequences++;
    placed_sequences++;
  }
  // Those that left in the meantime were released: the attention worker ends them.
  const auto leaving = std::exchange(request.leaving, {});
  for (const auto& [key, reason] : leaving) Forget(key, SequenceEvent::kRelease);
  std::erase_if(request.spec.choices,
                [&](const auto& choice) { return leaving.contains(request.Key(choice)); });
  if (request.spec.choices.empty()) return DropRequest(request, RequestEvent::kFinish);
  for (const ChoiceStart& choice : request.spec.choices) {
    out.push_back(TellPlaced{request.gateway, request.Key(choice), TopologyOf(attention),
                             request.prefill.empty() ? attention.id() : request.prefill,
                             attention.id(), attention.description.address});
  }
  if (already_there) {
    // It may even have ended, with the word of it on its way to the gateway: not this router's to
    // follow.
    for (const ChoiceStart& choice : request.spec.choices)
      Forget(request.Key(choice), SequenceEvent::kLost);
    return DropRequest(request, RequestEvent::kFinish);
  }
  if (request.prefill.empty() || request.prefilled_early) return FinishPrefill(request);
  if (!request.local()) StartPrefill(request);
}

// With the slot that was held since the reservation; its worker may be gone by now.
void Controller::State::StartPrefill(Request& request) {
  Worker* prefill = Find(request.prefill);
  if (prefill == nullptr || prefill->state != WorkerState::kReady) {
    return NextPrefillWorker(
        request, absl::UnavailableError(absl::StrCat("prefill worker ", request.prefill.value(),
                                                     " is gone or draining")));
  }
  const ChoiceStart& first = request.spec.choices.front();
  const Worker& attention = workers.at(request.attention);
  SendPrefill command;
  command.reservation = request.reservation;
  command.sequence = request.Key(first);
  command.ids = request.spec.prompt_ids;
  command.ids.insert(command.ids.end(), first.emitted_ids.begin(), first.emitted_ids.end());
  command.attention_worker = attention.id();
  command.attention_address = attention.description.address;
  request.command = Send(*prefill, CommandKind::kPrefill, std::move(command), request.number);
}

void Controller::State::OnPrefillAnswer(Request& request, const absl::Status& status) {
  request.command.reset();
  if (status.ok()) return;  // SequencePrefilled or SequenceEnded tells the rest
  NextPrefillWorker(request, status);
}

// PROTOCOL section 2.5: the next prefill worker for the same reservation; none left: give it back.
void Controller::State::NextPrefillWorker(Request& request, const absl::Status& why) {
  // The attention worker waits for no KV of it: an earlier prefill worker was done before it was
  // lost, or the sequences have ended. Either way the rest is the attention worker's to tell.
  if (absl::IsNotFound(why)) return FinishPrefill(request);
  ReleaseSlot(request);
  request.command.reset();
  request.prefill_tried.insert(request.prefill);
  if (Worker* refused = Find(request.prefill);
      refused != nullptr && absl::IsResourceExhausted(why)) {
    refused->full_at = refused->changes;
  }
  const bool tries_left =
      request.prefill_tried.size() < config.max_prefill_workers && !absl::IsInvalidArgument(why);
  const std::optional<WorkerId> next = tries_left ? ChoosePrefill(request) : std::nullopt;
  if (!next.has_value()) return GiveBack(request, why);
  request.prefill = *next;
  workers.at(*next).prompts.insert(request.number);
  StartPrefill(request);
}

// The attention worker may have started all the same, with the word of it lost. So it ends the
// sequences as superseded and the gateway comes again with what it has, one attempt later, at the
// queue's head. An error that another try would meet again is the end.
void Controller::State::GiveBack(Request& request, const absl::Status& why) {
  const bool later = absl::IsResourceExhausted(why) || absl::IsUnavailable(why);
  for (const ChoiceStart& choice : request.spec.choices) {
    const SequenceKey key = request.Key(choice);
    if (!later) Tell(request.gateway, key, EndReason::kFailed, why);
    Forget(key, SequenceEvent::kRelease);
  }
  SendReleaseTo(request.attention, request.reservation, {}, EndReason::kSuperseded);
  DropRequest(request, RequestEvent::kFinish);
}

// The prompt's KV is complete: from here the attention worker and the gateway go on without the
// router.
void Controller::State::FinishPrefill(Request& request) {
  for (const ChoiceStart& choice : request.spec.choices) {
    Sequence& sequence = sequences.at(request.Key(choice));
    sequence.state = MustNext(kSequenceTransitions, sequence.state, SequenceEvent::kPrefilled);
    sequence.request = 0;
  }
  DropRequest(request, RequestEvent::kPrefilled);
}

// A Decode was refused or its worker is gone: back to the queue's head, without those that left
// meanwhile.
void Controller::State::Requeue(Request& request) {
  ReleaseSlot(request);
  EndLeaving(request);
  if (request.spec.choices.empty()) return DropRequest(request, RequestEvent::kFinish);
  request.state = MustNext(kRequestTransitions, request.state, RequestEvent::kNoRoom);
  request.prefilled_early = false;
  request.at_head = true;
  request.queued_at = now;
  queue.insert({!request.at_head, request.number});
}

// The attention worker never held them, so their end is the router's to tell.
void Controller::State::EndLeaving(Request& request) {
  for (const auto& [key, reason] : std::exchange(request.leaving, {})) {
    if (reason.has_value()) Tell(request.gateway, key, *reason, absl::OkStatus());
    Forget(key, SequenceEvent::kEnd);
    std::erase_if(request.spec.choices,
                  [&, &key = key](const auto& choice) { return request.Key(choice) == key; });
  }
}

void Controller::State::ReleaseSlot(Request& request) {
  if (Worker* prefill = Find(request.prefill); prefill != nullptr)
    prefill->prompts.erase(request.number);
}

void Controller::State::DropRequest(Request& request, RequestEvent event) {
  request.state = MustNext(kRequestTransitions, request.state, event);
  ReleaseSlot(request);
  for (const ChoiceStart& choice : request.spec.choices) {
    if (const auto found = sequences.find(request.Key(choice)); found != sequences.end())
      found->second.request = 0;
  }
  queue.erase({!request.at_head, request.number});
  requests.erase(request.number);
}

}  // namespace tandem::control
