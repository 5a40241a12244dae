// The strand, with fake links and many threads: under TSan, too.

#include "services/router/router_core.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <utility>
#include <variant>
#include <vector>

#include "services/runtime/real_time.h"

namespace tandem::router {
namespace {

WorkerDescription Colocated(const std::string& id, uint64_t incarnation = 1) {
  WorkerDescription worker;
  worker.id = WorkerId(id);
  worker.incarnation = incarnation;
  worker.pool = "all";
  worker.model = "m";
  worker.stages = {Stage::kPrefill, Stage::kAttention, Stage::kFfn};
  worker.numerics = {"c", "c", "c"};
  worker.address = absl::StrCat(id, ":1");
  worker.capacity = {.kv_blocks = 100'000,
                     .block_tokens = 16,
                     .max_sequences = 10'000,
                     .prefill_slots = 1'000,
                     .max_handoff_rows = 64};
  worker.dimensions = {.layers = 2,
                       .hidden = 16,
                       .kv_heads = 1,
                       .head_dim = 16,
                       .vocabulary = 256,
                       .context_tokens = 1024};
  return worker;
}

GenerateSpec Spec(const std::string& id) {
  GenerateSpec spec;
  spec.request = RequestId(id);
  spec.prompt_ids = {1, 2, 3};
  spec.stop.max_tokens = 4;
  spec.choices = {{.choice = 0, .attempt = 0, .seed = 1, .emitted_ids = {}}};
  return spec;
}

// Something that a test waits for: no wait without an end that is told.
class Counter {
 public:
  void Add() {
    MutexLock lock(mu_);
    count_++;
    changed_.NotifyAll();
  }
  void Await(int count) {
    MutexLock lock(mu_);
    while (count_ < count) changed_.Wait(lock);
  }
  int count() {
    MutexLock lock(mu_);
    return count_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  int count_ = 0;
};

// Answers each Decode at once, from the strand itself, as a quick worker's stream would from
// another thread.
class FakeWorkerLink final : public WorkerLink,
                             public std::enable_shared_from_this<FakeWorkerLink> {
 public:
  FakeWorkerLink(RouterCore& core, const WorkerDescription& worker)
      : core_(core), worker_(worker.id), incarnation_(worker.incarnation) {}
  const WorkerId& worker() const override { return worker_; }
  uint64_t incarnation() const override { return incarnation_; }

  void Send(const control::Command& command) override {
    if (const auto* answer = std::get_if<control::AnswerRegistration>(&command)) {
      (answer->status.ok() ? accepted : refused).Add();
    } else if (const auto* decode = std::get_if<control::SendDecode>(&command)) {
      const SequenceKey key{decode->request, decode->choices[0].choice, decode->choices[0].attempt};
      Say(control::CommandAnswered{worker_, incarnation_, decode->command, absl::OkStatus()});
      Say(control::SequencePrefilled{worker_, key});
      if (end_at_once)
        Say(control::SequenceEnded{worker_, key, {EndReason::kEos, absl::OkStatus()}});
      decodes.Add();
    }
  }
  void Close(const absl::Status&) override { closed.Add(); }
  void Say(control::Event event) {
    core_.WorkerSaid(shared_from_this(), std::move(event), [] {});
  }

  std::atomic<bool> end_at_once = true;
  Counter accepted, refused, decodes, closed;

 private:
  RouterCore& core_;
  const WorkerId worker_;
  const uint64_t incarnation_;
};

class FakeGatewayLink final : public GatewayLink {
 public:
  explicit FakeGatewayLink(std::string id) : id_(std::move(id)) {}
  const GatewayId& gateway() const override { return id_; }
  void Send(const control::Command& command) override {
    if (const auto* placed = std::get_if<control::TellPlaced>(&command)) {
      {
        MutexLock lock(mu_);
        topologies_[placed->sequence.request.value()] = placed->topology;
      }
      this->placed.Add();
    } else if (const auto* end = std::get_if<control::TellEnd>(&command)) {
      {
        MutexLock lock(mu_);
        last_end_ = *end;
      }
      ended.Add();
    } else if (const auto* state = std::get_if<control::TellClusterState>(&command)) {
      (state->ready ? ready : unready).Add();
    }
  }
  void Send(const ClusterLoad& load) override {
    {
      MutexLock lock(mu_);
      load_ = load;
    }
    loads.Add();
  }
  void Close(const absl::Status&) override { closed.Add(); }
  ClusterLoad load() {
    MutexLock lock(mu_);
    return load_;
  }
  control::TellEnd last_end() {
    MutexLock lock(mu_);
    return last_end_;
  }

  Counter placed, ended, ready, unready, closed, loads;

 private:
  const GatewayId id_;
  Mutex mu_;
  std::map<std::string, std::string> topologies_;
  control::TellEnd last_end_;
  ClusterLoad load_;
};

RouterCoreConfig Config() {
  RouterCoreConfig config;
  config.controller.model = "m";
  config.controller.worker_lease = Duration::Seconds(3600);
  config.snapshot_interval = Duration();
  return config;
}

struct Rig {
  explicit Rig(const RouterCoreConfig& config = Config(),
               std::vector<RouterObserver*> observers = {})
      : core(config, time, std::move(observers)) {}
  std::shared_ptr<FakeWorkerLink> Register(const WorkerDescription& worker) {
    auto link = std::make_shared<FakeWorkerLink>(core, worker);
    core.WorkerConnected(link, worker, [] {});
    return link;
  }
  std::shared_ptr<FakeGatewayLink> Connect(const std::string& id) {
    auto link = std::make_shared<FakeGatewayLink>(id);
    core.GatewayConnected(link, [] {});
    return link;
  }
  // Until everything that was posted before has been handled and published.
  std::shared_ptr<const control::ControllerSnapshot> Settle() {
    for (int i = 0; i < 3; i++) {  // a batch that is under way, and what it posts
      Counter passed;
      core.DrainWorker(WorkerId("nobody"), [&](const absl::Status&) { passed.Add(); });
      passed.Await(1);
    }
    return core.Snapshot();
  }
  RealTimeSource time;
  RouterCore core;
};

void Generate(
    RouterCore& core, const std::shared_ptr<FakeGatewayLink>& link, const std::string& id,
    RouterCore::Taken taken = [] {}) {
  core.GatewaySaid(link, control::GenerateArrived{link->gateway(), Spec(id)}, std::move(taken));
}

// Goal: whatever threads post, each request is placed once and told once, and nothing stays behind.
TEST(RouterCore, RequestsOfManyThreadsAreEachPlacedOnce) {
  constexpr int kThreads = 4, kRequests = 200;
  Rig rig;
  std::vector<std::shared_ptr<FakeWorkerLink>> workers;
  for (int i = 0; i < 3; i++) workers.push_back(rig.Register(Colocated(absl::StrCat("w-", i))));
  for (const auto& worker : workers) worker->accepted.Await(1);
  std::vector<std::shared_ptr<FakeGatewayLink>> gateways;
  for (int t = 0; t < kThreads; t++) gateways.push_back(rig.Connect(absl::StrCat("g-", t)));
  std::vector<std::thread> threads;
  std::atomic<bool> stop = false;
  for (int t = 0; t < kThreads; t++) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < kRequests; i++) {  // as a stream: the next when the last was taken
        Counter taken;
        Generate(rig.core, gateways[t], absl::StrCat("r-", t, "-", i), [&taken] { taken.Add(); });
        taken.Await(1);
      }
    });
  }
  std::thread reader([&] {
    while (!stop) {
      const auto snapshot = rig.core.Snapshot();
      EXPECT_LE(snapshot->workers.size(), 3u);
    }
  });
  for (std::thread& thread : threads) thread.join();
  for (const auto& gateway : gateways) gateway->placed.Await(kRequests);
  stop = true;
  reader.join();
  int decodes = 0;
  for (const auto& worker : workers) decodes += worker->decodes.count();
  EXPECT_EQ(decodes, kThreads * kRequests);
  const auto snapshot = rig.Settle();
  EXPECT_EQ(snapshot->live_sequences, 0u);
  EXPECT_EQ(snapshot->open_requests, 0u);
  for (const auto& gateway : gateways) EXPECT_EQ(gateway->placed.count(), kRequests);
}

// Goal: a gateway knows how full the cluster is, from its first moment and after each change.
TEST(RouterCore, GatewaysAreToldTheClustersLoad) {
  RouterCoreConfig config = Config();
  config.load_interval = Duration();
  Rig rig(config);
  const auto gateway = rig.Connect("g");
  gateway->loads.Await(1);
  EXPECT_EQ(gateway->load(), ClusterLoad());
  WorkerDescription description = Colocated("w");
  description.capacity.kv_blocks = 40;
  description.capacity.block_tokens = 16;
  const auto worker = rig.Register(description);
  worker->accepted.Await(1);
  WorkerLoad load;
  load.kv_blocks_free = 50;  // more than there are: a worker may say anything
  worker->Say(control::WorkerHeartbeat{worker->worker(), worker->incarnation(), load});
  rig.Settle();
  EXPECT_EQ(gateway->load().kv_blocks, 40u);
  EXPECT_EQ(gateway->load().kv_blocks_free, 40u);
  EXPECT_EQ(gateway->load().block_tokens, 16u);
  load.kv_blocks_free = 10;
  worker->Say(control::WorkerHeartbeat{worker->worker(), worker->incarnation(), load});
  rig.Settle();
  EXPECT_EQ(gateway->load().kv_blocks_free, 10u);
  const int told = gateway->loads.count();
  worker->Say(
      control::WorkerHeartbeat{worker->worker(), worker->incarnation(), load});  // nothing new
  rig.Settle();
  EXPECT_EQ(gateway->loads.count(), told);
  const auto late = rig.Connect("late");
  rig.Settle();
  EXPECT_EQ(late->load().kv_blocks_free, 10u);
}

// Goal: the load is told at most once an interval, and the last change is not forgotten.
TEST(RouterCore, TheLoadIsToldOnceAnInterval) {
  RouterCoreConfig config = Config();
  config.load_interval = Duration::Seconds(3600);
  Rig rig(config);
  const auto gateway = rig.Connect("g");
  gateway->loads.Await(1);
  const auto worker = rig.Register(Colocated("w"));
  worker->accepted.Await(1);
  rig.Settle();
  EXPECT_LE(gateway->loads.count(), 2);  // the connection's, and at most one more
}

// Goal: streams that come and go while requests are posted break nothing; links are let go.
TEST(RouterCore, WorkersAndGatewaysMayComeAndGoFromManyThreads) {
  Rig rig;
  std::vector<std::thread> threads;
  std::vector<std::weak_ptr<FakeWorkerLink>> links[2];
  for (int t = 0; t < 2; t++) {
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; i++) {
        auto worker = rig.Register(Colocated(absl::StrCat("w-", t), i + 1));
        links[t].push_back(worker);
        worker->accepted.Await(1);
        if (i % 2 == 0) rig.core.WorkerDisconnected(worker, "cut");
      }
    });
    threads.emplace_back([&, t] {
      for (int i = 0; i < 50; i++) {
        auto gateway = rig.Connect(absl::StrCat("g-", t));
        Generate(rig.core, gateway, absl::StrCat("r-", t, "-", i));
        rig.core.GatewayDisconnected(gateway);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  rig.Settle();
  int alive = 0;
  for (const auto& of_thread : links) {
    for (const auto& link : of_thread) alive += link.expired() ? 0 : 1;
  }
  EXPECT_LE(alive, 2);  // the last of each id
}

TEST(RouterCore, EventsOfARefusedReplacedOrGoneStreamAreDropped) {
  Rig rig;
  auto first = rig.Register(Colocated("w-1"));
  first->accepted.Await(1);
  auto second = rig.Register(Colocated("w-1"));  // the same incarnation dials again
  second->accepted.Await(1);
  EXPECT_EQ(first->closed.count(), 1);
  WorkerLoad load;
  load.kv_blocks_free = 7;
  first->Say(control::WorkerHeartbeat{WorkerId("w-1"), 1, load});
  rig.core.WorkerDisconnected(first, "late news");
  auto snapshot = rig.Settle();
  ASSERT_EQ(snapshot->workers.size(), 1u);
  EXPECT_NE(snapshot->workers[0].load.kv_blocks_free, 7u);
  WorkerDescription other = Colocated("w-2");
  other.model = "another";
  auto refused = rig.Register(other);
  refused->refused.Await(1);
  rig.core.WorkerDisconnected(refused, "refused");
  rig.core.WorkerDisconnected(second, "cut");
  EXPECT_TRUE(rig.Settle()->workers.empty());
}

TEST(RouterCore, NewerGatewayStreamReplacesTheOlder) {
  Rig rig;
  auto first = rig.Connect("g-1");
  Generate(rig.core, first, "r-1");
  EXPECT_EQ(rig.Settle()->queued_requests, 1u);
  auto second = rig.Connect("g-1");
  first->closed.Await(1);
  EXPECT_EQ(rig.Settle()->queued_requests, 0u);
  Generate(rig.core, first, "r-2");  // said on a stream that is no more
  rig.core.GatewayDisconnected(first);
  EXPECT_EQ(rig.Settle()->queued_requests, 0u);
  Generate(rig.core, second, "r-3");
  EXPECT_EQ(rig.Settle()->queued_requests, 1u);
}

TEST(RouterCore, LeaseExpiresByTheClockAloneAndClosesTheLink) {
  RouterCoreConfig config = Config();
  config.controller.heartbeat_interval = Duration::Milliseconds(5);
  config.controller.worker_lease = Duration::Milliseconds(20);
  Rig rig(config);
  auto worker = rig.Register(Colocated("w-1"));
  worker->closed.Await(1);  // nothing else is posted: an alarm woke the strand
  EXPECT_TRUE(rig.Settle()->workers.empty());
}

TEST(RouterCore, SnapshotOfTheLastEventIsPublishedThoughNothingFollows) {
  RouterCoreConfig config = Config();
  config.snapshot_interval = Duration::Milliseconds(300);
  struct Watcher final : RouterObserver {
    void Handled(const control::Event&, const std::vector<control::Command>&, Instant) override {}
    void Published(const control::ControllerSnapshot& snapshot) override {
      if (snapshot.workers.size() == 1) with_one.Add();
      if (snapshot.workers.size() == 2) with_two.Add();
    }
    Counter with_one, with_two;
  } watcher;
  Rig rig(config, {&watcher});
  rig.Register(Colocated("w-1"));
  watcher.with_one.Await(1);
  rig.Register(Colocated("w-2"));  // within the interval: an alarm publishes it
  watcher.with_two.Await(1);
}

TEST(RouterCore, DrainRefusesNewRequestsAndWaitsForThePrefill) {
  Rig rig;
  auto worker = rig.Register(Colocated("w-1"));
  worker->accepted.Await(1);
  auto gateway = rig.Connect("g-1");
  rig.core.StartDrain();
  Generate(rig.core, gateway, "late");
  gateway->ended.Await(1);
  EXPECT_EQ(gateway->last_end().end.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_GT(gateway->last_end().retry_after, Duration());
  EXPECT_TRUE(rig.core.WaitUntilDrained(Duration::Seconds(3600)));
  EXPECT_EQ(worker->decodes.count(), 0);
}

TEST(RouterCore, DrainEndsAtItsLimitWhileARequestIsQueued) {
  Rig rig;
  auto gateway = rig.Connect("g-1");
  Generate(rig.core, gateway, "queued");
  rig.Settle();
  rig.core.StartDrain();
  EXPECT_FALSE(rig.core.WaitUntilDrained(Duration::Milliseconds(20)));
}

TEST(RouterCore, DestructorLetsLinksGoAndDropsWhatWasNotHandled) {
  std::weak_ptr<FakeWorkerLink> worker;
  std::weak_ptr<FakeGatewayLink> gateway;
  {
    Rig rig;
    worker = rig.Register(Colocated("w-1"));
    gateway = rig.Connect("g-1");
    for (int i = 0; i < 100; i++)
      Generate(rig.core, gateway.lock() ? gateway.lock() : rig.Connect("g-1"), absl::StrCat(i));
  }
  EXPECT_TRUE(worker.expired());
  EXPECT_TRUE(gateway.expired());
}

}  // namespace
}  // namespace tandem::router
