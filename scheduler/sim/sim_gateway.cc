#include "scheduler/sim/sim_gateway.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/sim/sim_router.h"
#include "scheduler/sim/sim_worker.h"

namespace tandem::sim {
namespace {

constexpr Duration kRedial = Duration::Milliseconds(100);
constexpr uint32_t kMaxRetries = 20;
constexpr double kPatienceSeconds = 0.05;  // mean, of clients that leave

uint32_t Between(Random& random, uint32_t min, uint32_t max) {
  return min + static_cast<uint32_t>(random.Below(uint64_t{max} - min + 1));
}

}  // namespace

SimGateway::SimGateway(World& world, GatewayId id, uint32_t requests, Random random)
    : world_(world), id_(std::move(id)) {
  const bool closed_loop = world.scenario.load.clients > 0;
  Instant at = world.Now();
  for (uint32_t i = 0; i < requests; i++) {
    at = at +
         Duration::FromSeconds(random.Exponential(world.scenario.load.interarrival_mean.seconds()));
    Random own = random.Child(absl::StrCat("request ", i));
    PlanRequest(own, i);
    if (!closed_loop) world.time.CallAt(at, [this, request = IdOf(i)] { Arrive(request); });
  }
  if (closed_loop) PlanClients(requests);
}

RequestId SimGateway::IdOf(uint32_t number) const {
  return RequestId(absl::StrCat(id_.value(), "-r", number));
}

void SimGateway::PlanClients(uint32_t requests) {
  const uint32_t clients = world_.scenario.load.clients;
  for (uint32_t i = 0; i < requests; i++) {
    Request& request = requests_.at(IdOf(i));
    const bool first = i < clients, last = i + clients >= requests;
    if (!last) request.next = IdOf(i + clients);
    request.counts = !first && !last;
    if (first) world_.time.CallAt(world_.Now(), [this, id = IdOf(i)] { Arrive(id); });
  }
}

void SimGateway::StartNext(const Request& request) {
  const bool over = std::all_of(request.choices.begin(), request.choices.end(),
                                [](const Choice& choice) { return choice.done; });
  if (over && !request.next.empty())
    world_.time.CallAt(world_.Now(), [this, id = request.next] { Arrive(id); });
}

void SimGateway::PlanRequest(Random& random, uint32_t number) {
  const LoadSpec& load = world_.scenario.load;
  const RequestId id = IdOf(number);
  Request& request = requests_[id];
  const uint32_t prompt = Between(random, load.prompt_min, load.prompt_max);
  for (uint32_t i = 0; i < prompt; i++) {
    request.prompt.push_back(1 +
                             static_cast<TokenId>(random.Below(world_.scenario.vocabulary - 1)));
  }
  uint32_t max_tokens = Between(random, load.output_min, load.output_max);
  if (number < load.clients) max_tokens = FirstOutput(number, load.clients, max_tokens);
  const uint64_t seed = random.Next();
  request.choices.resize(Between(random, 1, load.choices_max));
  for (uint32_t c = 0; c < request.choices.size(); c++) {
    Choice& choice = request.choices[c];
    choice.key = {id, c, 0};
    choice.max_tokens = max_tokens;
    choice.seed = ChoiceSeed(seed, c);
    const bool stops = random.Below(100) < load.stop_percent;
    const uint32_t stop_at = Between(random, 1, max_tokens);
    choice.stop_at = stops ? stop_at : 0;
    ReferenceSequence reference(request.prompt, choice.seed,
                                static_cast<uint32_t>(world_.scenario.shape.layers),
                                world_.scenario.vocabulary);
    do {
      choice.expected.push_back(reference.Next());
    } while (choice.expected.back() != 0 && choice.expected.size() < max_tokens &&
             choice.expected.size() != choice.stop_at);
    unfinished_++;
  }
  const Duration leaves = Duration::FromSeconds(random.Exponential(kPatienceSeconds));
  if (random.Below(100) < load.cancel_percent) request.leaves = leaves;
}

void SimGateway::Start() { DialRouter(); }

void SimGateway::Kill() {
  alive_ = false;
  if (router_) router_->DiallerGone();
  for (auto& [worker, stream] : streams_) stream->DiallerGone();
  for (auto& [id, request] : requests_) {
    for (Choice& choice : request.choices) {
      if (!choice.done) Finish(choice, "gateway_lost");
    }
  }
}

void SimGateway::Arrive(const RequestId& id) {
  if (!alive_) return;
  Request& request = requests_.at(id);
  std::vector<Choice*> choices;
  for (Choice& choice : request.choices) {
    choice.arrived = world_.Now();
    choices.push_back(&choice);
  }
  world_.time.CallAt(world_.Now() + request.leaves, [this, id] { Leave(id, 0); });
  request.asked = true;
  Generate(id, choices);
}

// The client closes its connection.
void SimGateway::Leave(const RequestId& id, uint32_t c) {
  Choice& choice = requests_.at(id).choices[c];
  if (!alive_ || choice.done) return;
  const WorkerId worker = choice.worker;
  const SequenceKey key = choice.key;
  Finish(choice, "cancelled");
  if (router_) {
    const control::AbortArrived abort{id_, id, {c}};
    router_->ToAnswerer(64, [router = world_.router.get(), abort] { router->OnEvent(abort); });
  }
  if (!worker.empty()) SendStop(worker, key, 0, EndReason::kCancelled);
}

// ---- The router.

void SimGateway::DialRouter() {
  if (!alive_ || (router_ && router_->open())) return;
  SimRouter* const router = world_.router.get();
  if (!router->up()) {
    world_.time.CallAt(world_.Now() + kRedial, [this] { DialRouter(); });
    return;
  }
  const bool again = router_ != nullptr;
  router_ = world_.Open(
      world_.scenario.control_link,
      [this](const Stream*) {
        world_.time.CallAt(world_.Now() + kRedial, [this] { DialRouter(); });
      },
      [router, id = id_](const Stream* stream) { router->OnGatewayBroken(id, stream); });
  router_->ToAnswerer(64, [router, this, stream = router_] { router->OnHello(*this, stream); });
  if (!again) return;
  // The old router's queue is gone: ask again for what has no token stream.
  for (auto& [id, request] : requests_) {
    for (Choice& choice : request.choices) {
      if (request.asked && !choice.done && choice.worker.empty()) Resume(choice, Duration());
    }
  }
}

void SimGateway::Generate(const RequestId& id, const std::vector<Choice*>& choices) {
  if (!router_) return;
  control::GenerateArrived event;
  event.gateway = id_;
  event.spec.request = id;
  event.spec.prompt_ids = requests_.at(id).prompt;
  event.spec.stop.max_tokens = choices[0]->max_tokens;
  event.spec.resume = choices[0]->key.attempt > 0;
  for (const Choice* choice : choices) {
    event.spec.choices.push_back(
        {choice->key.choice, choice->key.attempt, choice->seed, choice->got});
  }
  const uint64_t bytes = 128 + 4 * event.spec.prompt_ids.size();
  router_->ToAnswerer(bytes, [router = world_.router.get(), event] { router->OnEvent(event); });
}

void SimGateway::OnRouter(const control::Command& command) {
  if (!alive_) return;
  if (const auto* state = std::get_if<control::TellClusterState>(&command)) {
    for (const auto& [worker, address] : state->attention_workers) DialWorker(worker);
  } else if (const auto* placed = std::get_if<control::TellPlaced>(&command)) {
    Choice* const choice = Find(placed->sequence);
    if (choice == nullptr || choice->key != placed->sequence) return;
    if (choice->done)
      return SendStop(placed->attention_worker, placed->sequence, 0, EndReason::kCancelled);
    choice->worker = placed->attention_worker;
    DialWorker(choice->worker);
  } else if (const auto* end = std::get_if<control::TellEnd>(&command)) {
    Choice* const choice = Find(end->sequence);
    if (choice != nullptr && !choice->done && choice->key == end->sequence)
      OnRouterEnd(*choice, *end);
  }
}

void SimGateway::OnRouterEnd(Choice& choice, const control::TellEnd& end) {
  if (end.end.reason == EndReason::kSuperseded) return;
  const absl::Status& status = end.end.status;
  const bool full = absl::IsResourceExhausted(status) || absl::IsUnavailable(status);
  if (full && choice.key.attempt == 0) {
    if (end.retry_after <= Duration())
      world_.Violation(absl::StrCat(ToString(choice.key), ": refused without retry_after"));
    return Finish(choice, "rejected");
  }
  if (full && choice.retries < kMaxRetries) return Resume(choice, end.retry_after);
  Finish(choice, "failed");
}

// The same request, one attempt later, with what its client has.
void SimGateway::Resume(Choice& choice, Duration after) {
  choice.retries++;
  choice.key.attempt++;
  choice.worker = WorkerId();
  world_.report.resumes++;
  world_.time.CallAt(world_.Now() + after, [this, key = choice.key] {
    Choice* const again = Find(key);
    if (alive_ && !again->done && again->key == key) Generate(key.request, {again});
  });
}

// ---- Attention workers.

void SimGateway::DialWorker(const WorkerId& wanted) {
  // A copy: the choice that it is a field of may resume, and change it.
  const WorkerId id = wanted;  // NOLINT(performance-unnecessary-copy-initialization)
  std::shared_ptr<Stream>& stream = streams_[id];
  if (!alive_ || (stream && stream->open())) return;
  SimWorker* const worker = world_.UpWorker(id);
  if (worker == nullptr) {
    streams_.erase(id);
    for (auto& [request_id, request] : requests_) {
      for (Choice& choice : request.choices) {
        if (!choice.done && choice.worker == id) Resume(choice, Duration());
      }
    }
    return;
  }
  stream = world_.Open(
      world_.scenario.control_link, [this, id](const Stream* s) { OnWorkerBroken(id, s); },
      [worker, me = id_](const Stream* s) { worker->OnGatewayBroken(me, s); });
  std::vector<step::ResumePoint> resume;
  for (const auto& [request_id, request] : requests_) {
    for (const Choice& choice : request.choices) {
      if (!choice.done && choice.worker == id)
        resume.push_back({choice.key, static_cast<uint32_t>(choice.got.size())});
    }
  }
  stream->ToAnswerer(64 + 32 * resume.size(), [worker, this, s = stream, resume] {
    worker->OnGatewayStream(*this, s, resume);
  });
}

void SimGateway::OnWorkerBroken(const WorkerId& worker, const Stream* stream) {
  const auto found = streams_.find(worker);
  if (!alive_ || found == streams_.end() || found->second.get() != stream) return;
  world_.time.CallAt(world_.Now() + kRedial, [this, worker] { DialWorker(worker); });
}

void SimGateway::SendStop(const WorkerId& id, const SequenceKey& key, uint32_t position,
                          EndReason reason) {
  SimWorker* const worker = world_.UpWorker(id);
  const auto stream = streams_.find(id);
  if (worker == nullptr || stream == streams_.end()) return;
  stream->second->ToAnswerer(
      48, [worker, key, position, reason] { worker->OnStop(key, position, reason); });
}

void SimGateway::OnTokens(const WorkerId& id, const step::OutboxMessage& message) {
  if (!alive_) return;
  SimWorker* const worker = world_.UpWorker(id);
  for (const step::Emit& emit : message.emits) OnEmit(id, emit);
  const auto stream = streams_.find(id);
  if (worker == nullptr || stream == streams_.end()) return;
  stream->second->ToAnswerer(
      16, [worker, me = id_, step = message.step] { worker->OnTokenAck(me, step); });
}

void SimGateway::OnEmit(const WorkerId& worker, const step::Emit& emit) {
  Choice* const choice = Find(emit.sequence);
  if (choice == nullptr)
    return world_.Violation(absl::StrCat(ToString(emit.sequence), " was never asked for"));
  if (choice->done || choice->key != emit.sequence) {
    // An older attempt, or a client that left: whoever still computes it is told.
    if (!emit.end.has_value()) SendStop(worker, emit.sequence, 0, EndReason::kCancelled);
    return;
  }
  choice->worker = emit.end.has_value() ? choice->worker : worker;
  if (emit.token.has_value()) TakeToken(*choice, emit);
  if (!choice->done && emit.end.has_value()) OnEnd(*choice, *emit.end);
}

void SimGateway::TakeToken(Choice& choice, const step::Emit& emit) {
  if (emit.position != choice.got.size()) {
    return world_.Violation(absl::StrCat(ToString(choice.key), ": position ", emit.position,
                                         " after ", choice.got.size(), " tokens"));
  }
  if (emit.position >= choice.expected.size() || emit.token->id != choice.expected[emit.position]) {
    return world_.Violation(absl::StrCat(ToString(choice.key), ": token ", emit.position, " is ",
                                         emit.token->id, ", not the sequence's own"));
  }
  if (choice.got.empty()) choice.first = world_.Now();
  choice.last = world_.Now();
  choice.got.push_back(emit.token->id);
  if (choice.got.size() != choice.stop_at || emit.end.has_value()) return;
  SendStop(choice.worker, choice.key, choice.stop_at, EndReason::kStopped);
  Finish(choice, "stopped");
}

void SimGateway::OnEnd(Choice& choice, const SequenceEnd& end) {
  if (!choice.ended.insert(choice.key.attempt).second) {
    return world_.Violation(absl::StrCat(ToString(choice.key), " ended twice"));
  }
  switch (end.reason) {
    case EndReason::kEos:
    case EndReason::kLength:
      if (choice.got.size() != choice.expected.size()) {
        world_.Violation(absl::StrCat(ToString(choice.key), ": ended after ", choice.got.size(),
                                      " of ", choice.expected.size(), " tokens"));
      }
      return Finish(choice, ToString(end.reason));
    case EndReason::kPreempted:
      world_.report.preemptions++;
      return Resume(choice, Duration());
    case EndReason::kSuperseded:  // the router had no prefill worker for it
      return Resume(choice, Duration());
    default:
      // kCancelled: its lease for this gateway ran out. kFailed: no FFN holder, or not held there
      // any more.
      if (choice.retries < kMaxRetries) return Resume(choice, Duration());
      Finish(choice, "failed");
  }
}

void SimGateway::Finish(Choice& choice, const std::string& how) {
  choice.done = true;
  unfinished_--;
  SimReport& report = world_.report;
  const Request& request = requests_.at(choice.key.request);
  const bool counts = request.counts;
  report.ended[how]++;
  if (how != "cancelled" && how != "rejected" && how != "gateway_lost") {
    report.tokens_requested += choice.expected.size();
    report.tokens_delivered += choice.got.size();
    if (counts && !choice.got.empty()) world_.ttft.push_back(choice.first - choice.arrived);
    if (counts && choice.got.size() > 1) {
      world_.tpot.push_back((choice.last - choice.first) /
                            (static_cast<int64_t>(choice.got.size()) - 1));
    }
  }
  world_.Record(absl::StrCat("client ", ToString(choice.key), " ", how, " ", choice.got.size()));
  StartNext(request);
}

std::string SimGateway::Unfinished() const {
  for (const auto& [id, request] : requests_) {
    for (const Choice& choice : request.choices) {
      if (choice.done) continue;
      return absl::StrCat(ToString(choice.key), " has ", choice.got.size(), " of ",
                          choice.expected.size(), " tokens, placed at '", choice.worker.value(),
                          "'");
    }
  }
  return "";
}

SimGateway::Choice* SimGateway::Find(const SequenceKey& key) {
  const auto found = requests_.find(key.request);
  if (found == requests_.end() || key.choice >= found->second.choices.size()) return nullptr;
  return &found->second.choices[key.choice];
}

}  // namespace tandem::sim
