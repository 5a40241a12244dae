#pragma once

#include <absl/status/status.h>

#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "services/gateway/relay/sequence_state.h"
#include "services/gateway/relay/types.h"
#include "services/runtime/mutex.h"

namespace tandem::gateway {

struct RelayConfig {
  uint32_t max_requests = 4096;  // in flight; more get kResourceExhausted
  uint32_t max_workers = 1024;   // attention workers known at once
  uint32_t max_losses = 5;  // lost workers and routers that one choice survives, then kUnavailable
  uint32_t max_preemptions = 1000;  // of one choice, then kUnavailable
  uint32_t ack_interval = 8;        // steps; fewer than the worker's replay buffer holds
  Duration router_wait = Duration::Seconds(10);    // how long a choice waits for any router
  Duration default_lease = Duration::Seconds(10);  // until a router's welcome says it
};

// Counts for metrics. Called under the relay's lock.
class RelayObserver {
 public:
  virtual ~RelayObserver() = default;
  virtual void Resumed(RelayEvent /*why: kPreempted, kWorkerLost, kRouterLost*/) {}
  virtual void Wasted(uint64_t /*tokens*/) {}  // came for a choice that wants none
  virtual void RoutersConnected(uint32_t /*count*/) {}
};

// Follows every choice of every request: places it with a router, takes its tokens from its
// attention worker, and starts it again elsewhere with what it has emitted when either is lost or
// the worker runs out of KV (PROTOCOL, sections 4, 5).
//
// Knows no gRPC: streams are RouterLink and WorkerLink, which report here. Safe from any thread;
// one lock, under which it calls links and sinks. Links report without holding a lock of theirs
// that these calls need.
class Relay : public std::enable_shared_from_this<Relay> {
 public:
  static std::shared_ptr<Relay> Create(const RelayConfig& config, TimeSource& time,
                                       WorkerDialer& dialer, RelayObserver* observer = nullptr);

  // Before the link reports anything. Routers are asked in this order, the ready ones first.
  // Returns its number.
  size_t AddRouter(RouterLink& link) TANDEM_EXCLUDES(mu_);

  // Forgets all requests and workers. From its return on no link is called, whatever streams,
  // connections and alarms still say: the links may go.
  void Shut() TANDEM_EXCLUDES(mu_);

  // --- for connections
  // spec.request is not in flight. kUnavailable: no router is connected; kResourceExhausted:
  // max_requests.
  absl::Status Start(tandem::GenerateSpec spec, std::shared_ptr<ChoiceSink> sink)
      TANDEM_EXCLUDES(mu_);
  // The choice needs no more tokens: `position` of them count. Nothing of it is delivered
  // afterwards. Idempotent.
  void Stop(const RequestId& request, uint32_t choice, uint32_t position, EndReason reason)
      TANDEM_EXCLUDES(mu_);
  // The client left: stops all choices.
  void Cancel(const RequestId& request) TANDEM_EXCLUDES(mu_);
  // Every choice in flight ends with this error, here and at its router and worker.
  void FailAll(const absl::Status& why) TANDEM_EXCLUDES(mu_);
  // Of the best connected router. With none: not ready, and why.
  ClusterInfo cluster() const TANDEM_EXCLUDES(mu_);
  // Of the same router; zeros with none.
  ClusterLoad load() const TANDEM_EXCLUDES(mu_);
  size_t in_flight() const TANDEM_EXCLUDES(mu_);

  // --- for router links
  void RouterUp(size_t router, Duration lease) TANDEM_EXCLUDES(mu_);
  void RouterDown(size_t router) TANDEM_EXCLUDES(mu_);
  void ClusterChanged(size_t router, ClusterInfo cluster) TANDEM_EXCLUDES(mu_);
  void LoadChanged(size_t router, const ClusterLoad& load) TANDEM_EXCLUDES(mu_);
  void Placed(const PlacedInfo& placed) TANDEM_EXCLUDES(mu_);
  void Refused(const RefusedInfo& refused) TANDEM_EXCLUDES(mu_);

  // --- for worker links
  // For the hello of a stream about to be opened: what has come of each live sequence.
  std::vector<ResumePoint> ResumePoints(const WorkerId& worker) TANDEM_EXCLUDES(mu_);
  void WorkerUp(const WorkerId& worker) TANDEM_EXCLUDES(mu_);
  // The stream ended, with what the worker said last. Its sequences wait a lease for a new stream;
  // those of a gateway that fell behind have ended for good (IsGatewayOverloaded).
  void WorkerDown(const WorkerId& worker, const absl::Status& why) TANDEM_EXCLUDES(mu_);
  void Tokens(const WorkerId& worker, TokenBatch batch) TANDEM_EXCLUDES(mu_);

 private:
  struct Router {
    RouterLink* link = nullptr;
    bool up = false;
    ClusterInfo cluster;
    ClusterLoad load;
  };
  struct Worker {
    WorkerLink* link = nullptr;
    std::string address;  // dialled
    bool up = false;
    bool listed = false;  // some router's cluster names it
    Instant up_at;
    bool heard = false;  // something came since
    Instant give_up_at =
        Instant::Never();  // of the sequences there, unless a stream stands by then
    uint64_t epoch = 0;    // new with each up and down: an alarm set earlier finds that it is stale
    uint64_t received_step = 0;
    uint64_t acknowledged_step = 0;
  };
  struct Choice {
    ChoiceStart start;  // with the emitted ids
    RelayState state = RelayState::kUnplaced;
    size_t router = 0;  // while placing
    WorkerId worker;    // while streaming
    uint32_t losses = 0, preemptions = 0;
    Placement placement;
  };
  struct Request {
    tandem::GenerateSpec spec;  // without choices
    std::shared_ptr<ChoiceSink> sink;
    std::vector<Choice> choices;
    uint32_t live = 0;
  };
  using Requests = std::unordered_map<std::string, Request>;

  Relay(const RelayConfig& config, TimeSource& time, WorkerDialer& dialer, RelayObserver* observer);

  const Router* BestRouter() const TANDEM_REQUIRES(mu_);  // null: none is connected
  Router* PickRouter() TANDEM_REQUIRES(mu_);
  void Place(Request& request) TANDEM_REQUIRES(mu_);
  void PlaceAll() TANDEM_REQUIRES(mu_);
  void WatchUnplaced() TANDEM_REQUIRES(mu_);
  void FailUnplaced() TANDEM_EXCLUDES(mu_);
  Worker* FindWorker(const Endpoint& endpoint) TANDEM_REQUIRES(mu_);
  void ListWorkers() TANDEM_REQUIRES(mu_);
  void WatchWorker(const WorkerId& worker, Instant give_up_at) TANDEM_REQUIRES(mu_);
  void WorkerLost(const WorkerId& worker, uint64_t epoch) TANDEM_EXCLUDES(mu_);
  // Nothing more comes from there: its sequences start again, or fail for what `why` says.
  void GiveUp(const WorkerId& worker, const absl::Status& why) TANDEM_REQUIRES(mu_);
  void ForgetIfUnused(const WorkerId& id) TANDEM_REQUIRES(mu_);
  void Acknowledge(Worker& worker, bool now) TANDEM_REQUIRES(mu_);

  Choice* Find(const SequenceKey& key, Request** request) TANDEM_REQUIRES(mu_);
  void Take(const WorkerId& worker, SequenceTokens& part) TANDEM_REQUIRES(mu_);
  void TakeResult(Request& request, Choice& choice, ChoiceResult result, ChoiceEvent event)
      TANDEM_REQUIRES(mu_);
  void Resume(Request& request, Choice& choice, RelayEvent why) TANDEM_REQUIRES(mu_);
  void End(Request& request, Choice& choice, ChoiceEvent event) TANDEM_REQUIRES(mu_);
  void Fail(Request& request, Choice& choice, absl::Status status) TANDEM_REQUIRES(mu_);
  void Release(const RequestId& request, const Choice& choice) TANDEM_REQUIRES(mu_);
  void StopAt(const WorkerId& worker, const SequenceKey& key, uint32_t position, EndReason reason)
      TANDEM_REQUIRES(mu_);
  void Retire(Request& request, Choice& choice) TANDEM_REQUIRES(mu_);
  void Sweep(Requests::iterator request) TANDEM_REQUIRES(mu_);

  const RelayConfig config_;
  TimeSource& time_;
  WorkerDialer& dialer_;
  RelayObserver* const observer_;

  mutable Mutex mu_;
  Duration lease_ TANDEM_GUARDED_BY(mu_);
  std::deque<Router> routers_ TANDEM_GUARDED_BY(mu_);
  std::map<WorkerId, Worker> workers_ TANDEM_GUARDED_BY(mu_);
  Requests requests_ TANDEM_GUARDED_BY(mu_);
  uint64_t epochs_ TANDEM_GUARDED_BY(mu_) = 0;  // given out to workers
  bool unplaced_watched_ TANDEM_GUARDED_BY(mu_) = false;
  bool shut_ TANDEM_GUARDED_BY(mu_) = false;
  // Sequences that were stopped at a worker, the last kRememberedStops: their late tokens need no
  // second Stop.
  std::set<SequenceKey> stopped_ TANDEM_GUARDED_BY(mu_);
  std::deque<SequenceKey> stopped_order_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::gateway
