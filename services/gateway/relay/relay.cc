#include "services/gateway/relay/relay.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <utility>

#include "scheduler/base/check.h"

namespace tandem::gateway {
namespace {

constexpr size_t kRememberedStops = 4096;

}  // namespace

std::shared_ptr<Relay> Relay::Create(const RelayConfig& config, TimeSource& time,
                                     WorkerDialer& dialer, RelayObserver* observer) {
  return std::shared_ptr<Relay>(new Relay(config, time, dialer, observer));
}

Relay::Relay(const RelayConfig& config, TimeSource& time, WorkerDialer& dialer,
             RelayObserver* observer)
    : config_(config),
      time_(time),
      dialer_(dialer),
      observer_(observer),
      lease_(config.default_lease) {}

size_t Relay::AddRouter(RouterLink& link) {
  MutexLock lock(mu_);
  routers_.push_back({.link = &link, .up = false, .cluster = {}, .load = {}});
  return routers_.size() - 1;
}

// Without requests and workers, and with every router down, nothing finds a link to call.
void Relay::Shut() {
  MutexLock lock(mu_);
  shut_ = true;
  for (Router& router : routers_) router.up = false;
  workers_.clear();
  requests_.clear();
}

// --- for connections

absl::Status Relay::Start(tandem::GenerateSpec spec, std::shared_ptr<ChoiceSink> sink) {
  MutexLock lock(mu_);
  if (requests_.size() >= config_.max_requests) {
    return absl::ResourceExhaustedError(
        absl::StrCat(config_.max_requests, " requests are in flight; try again later"));
  }
  if (PickRouter() == nullptr) return absl::UnavailableError("no router is connected");
  const std::string id = spec.request.value();
  Request request;
  for (ChoiceStart& start : spec.choices) {
    request.choices.emplace_back();
    request.choices.back().start = std::move(start);
  }
  spec.choices.clear();
  request.live = static_cast<uint32_t>(request.choices.size());
  request.spec = std::move(spec);
  request.sink = std::move(sink);
  const auto [entry, added] = requests_.emplace(id, std::move(request));
  TANDEM_CHECK(added);
  Place(entry->second);
  return absl::OkStatus();
}

void Relay::Stop(const RequestId& request, uint32_t choice, uint32_t position, EndReason reason) {
  MutexLock lock(mu_);
  const auto found = requests_.find(request.value());
  if (found == requests_.end()) return;
  for (Choice& each : found->second.choices) {
    if (each.start.choice != choice || each.state == RelayState::kEnded) continue;
    const SequenceKey key{request, choice, each.start.attempt};
    if (each.state == RelayState::kStreaming) StopAt(each.worker, key, position, reason);
    if (each.state == RelayState::kPlacing && routers_[each.router].up) {
      routers_[each.router].link->Abort(request, {choice});
    }
    Retire(found->second, each);
  }
  Sweep(found);
}

void Relay::Cancel(const RequestId& request) {
  MutexLock lock(mu_);
  const auto found = requests_.find(request.value());
  if (found == requests_.end()) return;
  for (Choice& each : found->second.choices) {
    if (each.state == RelayState::kEnded) continue;
    Release(request, each);
    Retire(found->second, each);
  }
  Sweep(found);
}

void Relay::FailAll(const absl::Status& why) {
  MutexLock lock(mu_);
  for (auto entry = requests_.begin(); entry != requests_.end();) {
    const auto current = entry++;
    for (Choice& each : current->second.choices) {
      if (each.state == RelayState::kEnded) continue;
      Release(RequestId(current->first), each);
      Fail(current->second, each, why);
    }
    Sweep(current);
  }
}

// Its worker and its router, who may hold something for it, hear that nobody waits any more.
void Relay::Release(const RequestId& request, const Choice& choice) {
  const SequenceKey key{request, choice.start.choice, choice.start.attempt};
  // Both: a placed choice may still be in prefill, which only the router can release.
  if (choice.state == RelayState::kStreaming) {
    StopAt(choice.worker, key, static_cast<uint32_t>(choice.start.emitted_ids.size()),
           EndReason::kCancelled);
  }
  if (choice.state != RelayState::kUnplaced && routers_[choice.router].up) {
    routers_[choice.router].link->Abort(request, {choice.start.choice});
  }
}

const Relay::Router* Relay::BestRouter() const {
  const Router* best = nullptr;
  for (const Router& router : routers_) {
    if (router.up && (best == nullptr || (router.cluster.ready && !best->cluster.ready)))
      best = &router;
  }
  return best;
}

ClusterLoad Relay::load() const {
  MutexLock lock(mu_);
  const Router* const best = BestRouter();
  return best != nullptr ? best->load : ClusterLoad();
}

ClusterInfo Relay::cluster() const {
  MutexLock lock(mu_);
  if (const Router* const best = BestRouter(); best != nullptr) return best->cluster;
  ClusterInfo none;
  none.reason = "no router is connected";
  return none;
}

size_t Relay::in_flight() const {
  MutexLock lock(mu_);
  return requests_.size();
}

// --- for router links

void Relay::RouterUp(size_t router, Duration lease) {
  MutexLock lock(mu_);
  if (shut_) return;
  routers_[router].up = true;
  if (lease > Duration()) lease_ = lease;
  if (observer_ != nullptr) {
    observer_->RoutersConnected(static_cast<uint32_t>(
        std::count_if(routers_.begin(), routers_.end(), [](const Router& r) { return r.up; })));
  }
  PlaceAll();
}

void Relay::RouterDown(size_t router) {
  MutexLock lock(mu_);
  if (!routers_[router].up) return;
  routers_[router].up = false;
  routers_[router].cluster = {};
  routers_[router].load = {};
  if (observer_ != nullptr) {
    observer_->RoutersConnected(static_cast<uint32_t>(
        std::count_if(routers_.begin(), routers_.end(), [](const Router& r) { return r.up; })));
  }
  for (auto entry = requests_.begin(); entry != requests_.end();) {
    const auto current = entry++;
    for (Choice& choice : current->second.choices) {
      if (choice.state == RelayState::kPlacing && choice.router == router) {
        Resume(current->second, choice, RelayEvent::kRouterLost);
      }
    }
    Sweep(current);
  }
  ListWorkers();
  PlaceAll();
}

void Relay::ClusterChanged(size_t router, ClusterInfo cluster) {
  MutexLock lock(mu_);
  if (shut_) return;
  routers_[router].cluster = std::move(cluster);
  ListWorkers();
}

void Relay::LoadChanged(size_t router, const ClusterLoad& load) {
  MutexLock lock(mu_);
  if (shut_) return;
  routers_[router].load = load;
}

void Relay::Placed(const PlacedInfo& placed) {
  MutexLock lock(mu_);
  Request* request = nullptr;
  Choice* choice = Find(placed.sequence, &request);
  if (choice == nullptr || FindWorker(placed.attention) == nullptr) return;
  if (choice->state != RelayState::kPlacing && choice->state != RelayState::kStreaming) return;
  choice->state = MustNext(kRelayTransitions, choice->state, RelayEvent::kPlaced);
  choice->worker = placed.attention.worker;
  choice->placement = {placed.topology, placed.prefill_worker, placed.attention.worker.value()};
  request->sink->Deliver({.choice = choice->start.choice,
                          .placement = choice->placement,
                          .tokens = {},
                          .result = std::nullopt});
  if (!workers_.at(choice->worker).up) WatchWorker(choice->worker, time_.Now() + lease_);
}

void Relay::Refused(const RefusedInfo& refused) {
  MutexLock lock(mu_);
  Request* request = nullptr;
  Choice* choice = Find(refused.sequence, &request);
  if (choice == nullptr) return;
  TakeResult(*request, *choice, {{refused.end, {}, 0}, refused.retry_after_seconds}, {});
  Sweep(requests_.find(refused.sequence.request.value()));
}

// --- placement

Relay::Router* Relay::PickRouter() {
  Router* best = nullptr;
  for (Router& router : routers_) {
    if (router.up && (best == nullptr || (router.cluster.ready && !best->cluster.ready)))
      best = &router;
  }
  return best;
}

// Sends the unplaced choices to a router: fresh ones together, resumed ones each on its own (the
// wire's rule).
void Relay::Place(Request& request) {
  Router* router = PickRouter();
  if (router == nullptr) return WatchUnplaced();
  tandem::GenerateSpec fresh = request.spec;
  const auto send = [&](tandem::GenerateSpec& spec) { router->link->Generate(spec); };
  for (Choice& choice : request.choices) {
    if (choice.state != RelayState::kUnplaced) continue;
    choice.state = MustNext(kRelayTransitions, choice.state, RelayEvent::kSent);
    choice.router = static_cast<size_t>(router - &routers_[0]);
    if (choice.start.emitted_ids.empty() && choice.start.attempt == 0) {
      fresh.choices.push_back(choice.start);
      continue;
    }
    tandem::GenerateSpec again = request.spec;
    again.resume = true;
    again.choices.push_back(choice.start);
    send(again);
  }
  if (!fresh.choices.empty()) send(fresh);
}

void Relay::PlaceAll() {
  for (auto& [id, request] : requests_) {
    const bool waits =
        std::any_of(request.choices.begin(), request.choices.end(),
                    [](const Choice& choice) { return choice.state == RelayState::kUnplaced; });
    if (waits) Place(request);
  }
}

void Relay::WatchUnplaced() {
  if (unplaced_watched_) return;
  unplaced_watched_ = true;
  time_.CallAt(time_.Now() + config_.router_wait, [weak = weak_from_this()] {
    if (const auto self = weak.lock()) self->FailUnplaced();
  });
}

// No router came within router_wait: what waits for one ends.
void Relay::FailUnplaced() {
  MutexLock lock(mu_);
  unplaced_watched_ = false;
  if (PickRouter() != nullptr) return PlaceAll();
  for (auto entry = requests_.begin(); entry != requests_.end();) {
    const auto current = entry++;
    for (Choice& choice : current->second.choices) {
      if (choice.state != RelayState::kUnplaced) continue;
      Fail(current->second, choice, absl::UnavailableError("no router is connected"));
    }
    Sweep(current);
  }
}

// --- choices

Relay::Choice* Relay::Find(const SequenceKey& key, Request** request) {
  const auto found = requests_.find(key.request.value());
  if (found == requests_.end()) return nullptr;
  *request = &found->second;
  for (Choice& choice : found->second.choices) {
    if (choice.start.choice == key.choice && choice.start.attempt == key.attempt &&
        choice.state != RelayState::kEnded) {
      return &choice;
    }
  }
  return nullptr;
}

// One sequence's part of a step. Tokens that are here already are skipped; a gap is the worker's
// fault and ends the choice.
void Relay::Take(const WorkerId& worker, SequenceTokens& part) {
  Request* request = nullptr;
  Choice* choice = Find(part.sequence, &request);
  if (choice == nullptr || choice->state == RelayState::kUnplaced) {
    if (observer_ != nullptr && !part.tokens.empty()) observer_->Wasted(part.tokens.size());
    if (!part.result.has_value() && !stopped_.contains(part.sequence)) {
      StopAt(worker, part.sequence, part.position, EndReason::kCancelled);
    }
    return;
  }
  if (choice->state == RelayState::kPlacing || choice->worker != worker) choice->worker = worker;
  choice->state = MustNext(kRelayTransitions, choice->state, RelayEvent::kTokens);
  ChoiceEvent event;
  event.choice = choice->start.choice;
  std::vector<TokenId>& emitted = choice->start.emitted_ids;
  // A sequence that failed may have emitted what never got here; nobody is owed that.
  const bool failed = part.result.has_value() && part.result->end.reason == EndReason::kFailed;
  if (part.position > emitted.size() && !failed) {
    StopAt(worker, part.sequence, static_cast<uint32_t>(emitted.size()), EndReason::kCancelled);
    Fail(*request, *choice,
         absl::InternalError(absl::StrCat("worker ", worker.value(), " sent position ",
                                          part.position, " after ", emitted.size(), " tokens")));
  } else {
    const size_t known = emitted.size() - std::min<size_t>(part.position, emitted.size());
    for (size_t i = known; i < part.tokens.size(); ++i) {
      emitted.push_back(part.tokens[i].id);
      event.tokens.push_back(std::move(part.tokens[i]));
    }
    if (part.result.has_value()) {
      TakeResult(*request, *choice, {*std::move(part.result), 0}, std::move(event));
    } else if (!event.tokens.empty() && !request->sink->Deliver(std::move(event))) {
      StopAt(worker, part.sequence, static_cast<uint32_t>(emitted.size()), EndReason::kCancelled);
      Retire(*request, *choice);
    }
  }
  Sweep(requests_.find(part.sequence.request.value()));
}

// An end that says "not here, ask again" is answered so; any other is the client's.
void Relay::TakeResult(Request& request, Choice& choice, ChoiceResult result, ChoiceEvent event) {
  event.choice = choice.start.choice;
  const EndReason reason = result.result.end.reason;
  if (reason == EndReason::kPreempted || reason == EndReason::kSuperseded) {
    if (!event.tokens.empty()) request.sink->Deliver(std::move(event));
    Resume(request, choice, RelayEvent::kPreempted);
    if (choice.state == RelayState::kUnplaced) Place(request);
    return;
  }
  event.result = std::move(result);
  End(request, choice, std::move(event));
}

// Makes the choice ready to be placed again with what it has emitted, or fails it past its bound.
void Relay::Resume(Request& request, Choice& choice, RelayEvent why) {
  choice.state = MustNext(kRelayTransitions, choice.state, why);
  choice.start.attempt++;
  const bool preempted = why == RelayEvent::kPreempted;
  const uint32_t count = preempted ? ++choice.preemptions : ++choice.losses;
  if (observer_ != nullptr) observer_->Resumed(why);
  if (count > (preempted ? config_.max_preemptions : config_.max_losses)) {
    Fail(
        request, choice,
        absl::UnavailableError(absl::StrCat("the sequence was ", preempted ? "preempted " : "lost ",
                                            count, " times; try again later")));
  }
}

void Relay::End(Request& request, Choice& choice, ChoiceEvent event) {
  request.sink->Deliver(std::move(event));
  Retire(request, choice);
}

void Relay::Fail(Request& request, Choice& choice, absl::Status status) {
  ChoiceEvent event;
  event.choice = choice.start.choice;
  event.result = ChoiceResult{{{EndReason::kFailed, std::move(status)}, {}, 0}, 0};
  End(request, choice, std::move(event));
}

void Relay::StopAt(const WorkerId& worker, const SequenceKey& key, uint32_t position,
                   EndReason reason) {
  const auto found = workers_.find(worker);
  if (found == workers_.end() || found->second.link == nullptr) return;
  found->second.link->Stop(key, position, reason);
  if (stopped_.insert(key).second) stopped_order_.push_back(key);
  while (stopped_order_.size() > kRememberedStops) {
    stopped_.erase(stopped_order_.front());
    stopped_order_.pop_front();
  }
}

void Relay::Retire(Request& request, Choice& choice) {
  choice.state = MustNext(kRelayTransitions, choice.state, RelayEvent::kEnded);
  TANDEM_CHECK(request.live > 0);
  request.live--;
}

// Forgets a request whose choices have all ended.
void Relay::Sweep(Requests::iterator request) {
  if (request != requests_.end() && request->second.live == 0) requests_.erase(request);
}

}  // namespace tandem::gateway
