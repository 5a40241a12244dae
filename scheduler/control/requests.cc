// Gateways and their requests: arrival, ends, aborts.

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <iterator>

#include "scheduler/control/state.h"

namespace tandem::control {

void Controller::State::On(const GatewayConnected& event) {
  if (!gateways.contains(event.gateway) && gateways.size() >= config.max_gateways) return;
  gateways.insert(event.gateway);
  TellClusterState state = told;
  state.gateways = {event.gateway};
  out.push_back(std::move(state));
}

// Its clients' connections are gone. What decodes, the attention workers cancel when the gateway's
// lease ends.
void Controller::State::On(const GatewayLost& event) {
  gateways.erase(event.gateway);
  std::vector<SequenceKey> waiting;
  for (const auto& [key, sequence] : sequences) {
    if (sequence.gateway == event.gateway && sequence.request != 0) waiting.push_back(key);
  }
  for (const SequenceKey& key : waiting) AbortChoice(key, EndReason::kCancelled, /*tell=*/false);
}

policy::QueueView Controller::State::QueueNow() const {
  policy::QueueView view;
  view.resumes = static_cast<uint32_t>(std::distance(queue.begin(), queue.lower_bound({true, 0})));
  view.requests = static_cast<uint32_t>(queue.size()) - view.resumes;
  view.placement_interval = placement_interval;
  view.longest_sequence = told.context_tokens;
  return view;
}

void Controller::State::On(const GenerateArrived& event) {
  const GenerateSpec& spec = event.spec;
  if (AnswerDuplicate(event)) return;
  absl::Status admitted =
      policy::Admit(spec, QueueNow(), {config.max_queued_requests, config.max_queued_resumes});
  if (!gateways.contains(event.gateway)) {
    admitted = absl::ResourceExhaustedError(absl::StrCat("gateway ", event.gateway.value(),
                                                         " is not connected, or past ",
                                                         "max_gateways ", config.max_gateways));
  }
  if (!admitted.ok()) {
    for (const ChoiceStart& choice : spec.choices) {
      Tell(event.gateway, {spec.request, choice.choice, choice.attempt}, EndReason::kFailed,
           admitted);
    }
    return;
  }
  EndOlderAttempts(event);
  Request request;
  request.number = next_request++;
  request.gateway = event.gateway;
  request.spec = spec;
  request.at_head = spec.resume;
  request.queued_at = now;
  for (const ChoiceStart& choice : spec.choices) {
    Sequence& sequence = sequences[request.Key(choice)];
    sequence.gateway = event.gateway;
    sequence.request = request.number;
  }
  queue.insert({!request.at_head, request.number});
  requests.emplace(request.number, std::move(request));
}

// Generate is idempotent by (request, choice, attempt). True: every choice is known, or older than
// what is known.
bool Controller::State::AnswerDuplicate(const GenerateArrived& event) {
  size_t answered = 0;
  for (const ChoiceStart& choice : event.spec.choices) {
    const SequenceKey key{event.spec.request, choice.choice, choice.attempt};
    const auto known = sequences.lower_bound(key);
    if (known == sequences.end() || known->first.request != key.request ||
        known->first.choice != key.choice)
      continue;
    answered++;
    if (known->first.attempt > key.attempt) {
      Tell(event.gateway, key, EndReason::kSuperseded, absl::OkStatus());
    } else if (const Worker* worker = Find(known->second.worker); worker != nullptr) {
      // Placed already, by this router or by one before it.
      known->second.gateway = event.gateway;
      out.push_back(TellPlaced{event.gateway, key, TopologyOf(*worker), worker->id(), worker->id(),
                               worker->description.address});
    }
  }
  return answered > 0;
}

// The new attempt's prompt holds what the older one emitted: that one's KV is free to go.
void Controller::State::EndOlderAttempts(const GenerateArrived& event) {
  for (const ChoiceStart& choice : event.spec.choices) {
    std::vector<SequenceKey> older;
    for (auto it = sequences.lower_bound({event.spec.request, choice.choice, 0});
         it != sequences.end() &&
         it->first < SequenceKey{event.spec.request, choice.choice, choice.attempt};
         ++it) {
      older.push_back(it->first);
    }
    for (const SequenceKey& key : older) AbortChoice(key, EndReason::kSuperseded, /*tell=*/true);
  }
}

void Controller::State::On(const AbortArrived& event) {
  std::vector<SequenceKey> keys;
  for (auto it = sequences.lower_bound({event.request, 0, 0});
       it != sequences.end() && it->first.request == event.request; ++it) {
    const bool named = event.choices.empty() ||
                       std::find(event.choices.begin(), event.choices.end(), it->first.choice) !=
                           event.choices.end();
    if (named) keys.push_back(it->first);
  }
  for (const SequenceKey& key : keys) AbortChoice(key, EndReason::kCancelled, /*tell=*/true);
}

// While it waits the router ends it; once an attention worker may hold it, that worker is told, and
// tells the gateway.
void Controller::State::AbortChoice(const SequenceKey& key, EndReason reason, bool tell) {
  const Sequence sequence = sequences.at(key);
  const auto found = requests.find(sequence.request);
  if (found == requests.end()) {
    SendReleaseTo(sequence.worker, ReservationId(), {key}, reason);
    Forget(key, SequenceEvent::kRelease);
    return;
  }
  Request& request = found->second;
  if (request.state == RequestState::kQueued) {
    if (tell) Tell(request.gateway, key, reason, absl::OkStatus());
    Forget(key, SequenceEvent::kEnd);
    RemoveChoice(request, key);
    return;
  }
  SendReleaseTo(request.attention, ReservationId(), {key}, reason);
  if (request.state == RequestState::kReserving) {
    request.leaving[key] = tell ? std::optional(reason) : std::nullopt;
    return;
  }
  Forget(key, SequenceEvent::kRelease);
  RemoveChoice(request, key);
}

// Its last choice takes the request along, and whoever prefills it stops.
void Controller::State::RemoveChoice(Request& request, const SequenceKey& key) {
  std::erase_if(request.spec.choices,
                [&](const ChoiceStart& choice) { return request.Key(choice) == key; });
  if (!request.spec.choices.empty()) return;
  if (request.state == RequestState::kPrefilling && !request.local()) {
    SendReleaseTo(request.prefill, request.reservation, {}, EndReason::kCancelled);
  }
  DropRequest(request, RequestEvent::kFinish);
}

// Ends every choice at the router: none is an attention worker's.
void Controller::State::EndRequest(Request& request, EndReason reason, const absl::Status& status) {
  for (const ChoiceStart& choice : request.spec.choices) {
    const SequenceKey key = request.Key(choice);
    Tell(request.gateway, key, reason, status);
    Forget(key, SequenceEvent::kEnd);
  }
  DropRequest(request, RequestEvent::kFinish);
}

void Controller::State::On(const SequenceEnded& event) {
  if (Worker* worker = Find(event.worker); worker != nullptr) worker->changes++;
  const auto found = sequences.find(event.sequence);
  if (found == sequences.end()) return;
  const auto owner = requests.find(found->second.request);
  if (owner == requests.end()) {
    if (found->second.worker == event.worker) Forget(event.sequence, SequenceEvent::kEnd);
    return;
  }
  Request& request = owner->second;
  if (request.state == RequestState::kQueued) return;
  if (event.worker == request.attention) {
    if (request.state == RequestState::kReserving) {  // the event overtook its answer
      request.leaving[event.sequence] = std::nullopt;
      return;
    }
    Forget(event.sequence, SequenceEvent::kEnd);
    RemoveChoice(request, event.sequence);
  } else if (event.worker == request.prefill && request.state == RequestState::kPrefilling) {
    NextPrefillWorker(request, event.end.status);
  }
}

void Controller::State::On(const SequencePrefilled& event) {
  if (Worker* worker = Find(event.worker); worker != nullptr) worker->changes++;
  const auto found = sequences.find(event.sequence);
  if (found == sequences.end()) return;
  const auto owner = requests.find(found->second.request);
  if (owner == requests.end()) return;
  Request& request = owner->second;
  if (event.worker != request.prefill && event.worker != request.attention) return;
  if (request.state == RequestState::kPrefilling) {
    FinishPrefill(request);  // may end the request: it is not touched again
  } else if (request.state == RequestState::kReserving && request.local()) {
    request.prefilled_early = true;
  }
}

void Controller::State::Forget(const SequenceKey& key, SequenceEvent why) {
  Sequence& sequence = sequences.at(key);
  const bool placed =
      sequence.state == SequenceState::kAdmitted || sequence.state == SequenceState::kDecoding;
  sequence.state = MustNext(kSequenceTransitions, sequence.state, why);
  if (placed) {
    placed_sequences--;
    if (Worker* worker = Find(sequence.worker); worker != nullptr) {
      worker->sequences--;
      worker->kv_blocks_free = std::min<int64_t>(worker->kv_blocks_free + sequence.blocks,
                                                 worker->description.capacity.kv_blocks);
      // A draining FFN worker may have waited for this one.
      if (worker->sequences == 0 && worker->NeedsGroup()) workers_changed = true;
    }
  }
  sequences.erase(key);
}

void Controller::State::Tell(const GatewayId& gateway, const SequenceKey& key, EndReason reason,
                             const absl::Status& status) {
  TellEnd end{gateway, key, {reason, status}, Duration()};
  if (absl::IsResourceExhausted(status) || absl::IsUnavailable(status))
    end.retry_after = policy::RetryAfter(QueueNow());
  out.push_back(std::move(end));
}

// Without a ready topology nobody waits longer than queue_timeout.
void Controller::State::ExpireQueue() {
  if (told.ready) return;
  std::vector<uint64_t> late;
  for (const auto& [behind, number] : queue) {
    if (std::max(requests.at(number).queued_at, not_ready_since) + config.queue_timeout <= now)
      late.push_back(number);
  }
  const absl::Status status =
      absl::UnavailableError(absl::StrCat("queued for ", config.queue_timeout.seconds(),
                                          " s while no topology was ready: ", told.reason));
  for (const uint64_t number : late) EndRequest(requests.at(number), EndReason::kFailed, status);
}

}  // namespace tandem::control
