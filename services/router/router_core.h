#pragma once

// The controller on one strand. Streams hand their messages over as events; the controller's
// commands go to links. Knows no gRPC.

#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>

#include <deque>
#include <map>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/control/controller.h"
#include "services/router/links.h"
#include "services/runtime/mutex.h"

namespace tandem::router {

struct RouterCoreConfig {
  control::ControllerConfig controller;
  // Snapshots are made that far apart at most often: each copies every worker. Zero: after each
  // event.
  Duration snapshot_interval = Duration::Milliseconds(50);
  // Gateways are told how full the cluster is that far apart at most often.
  Duration load_interval = Duration::Seconds(1);
  // What a Generate that meets a draining router is told.
  Duration drain_retry_after = Duration::Seconds(1);
};

// Every public function may be called from any thread and returns at once (but WaitUntilDrained).
//
// The queue is bounded by construction: a stream hands over its next message only when `taken` of
// its last one was called (on the strand, once it is handled), and streams are counted where they
// are accepted. So the queue holds at most one message and one end of each stream.
class RouterCore {
 public:
  using Taken = absl::AnyInvocable<void()>;

  // `observers` outlive the core.
  RouterCore(const RouterCoreConfig& config, TimeSource& time,
             std::vector<RouterObserver*> observers);
  // Handles nothing more and lets the links go. `taken`s of messages that were not handled are
  // dropped.
  ~RouterCore();

  // A worker's first message. The answer is an AnswerRegistration to `link`. A stream of the same
  // worker and incarnation that is still here is closed, and counts as lost.
  void WorkerConnected(std::shared_ptr<WorkerLink> link, WorkerDescription worker, Taken taken);
  // Dropped when `link` is not the worker's accepted stream: refused, replaced or closed.
  void WorkerSaid(std::shared_ptr<WorkerLink> link, control::Event event, Taken taken);
  void WorkerDisconnected(std::shared_ptr<WorkerLink> link, std::string reason);

  // A newer stream of a gateway replaces the older, which is closed.
  void GatewayConnected(std::shared_ptr<GatewayLink> link, Taken taken);
  void GatewaySaid(std::shared_ptr<GatewayLink> link, control::Event event, Taken taken);
  void GatewayDisconnected(std::shared_ptr<GatewayLink> link);

  // `done`, on the strand: kNotFound when no such worker is registered.
  void DrainWorker(WorkerId worker, absl::AnyInvocable<void(absl::Status)> done);

  // From now on every Generate is answered kUnavailable; what is queued or in prefill goes on.
  void StartDrain();
  // True: nothing is queued or in prefill any more. False: `limit` passed. Call once, after
  // StartDrain.
  bool WaitUntilDrained(Duration limit);

  // The newest published; never null.
  std::shared_ptr<const control::ControllerSnapshot> Snapshot() const;

 private:
  using Task = absl::AnyInvocable<void()>;

  void Post(Task task) TANDEM_EXCLUDES(mu_);
  void Run() TANDEM_EXCLUDES(mu_);
  // The rest runs on the strand.
  void Handle(const control::Event& event);
  void Dispatch(const control::Command& command);
  void Deliver(const control::AnswerRegistration& answer);
  void Deliver(const control::CloseWorker& close);
  void Deliver(const control::TellClusterState& state);
  void SendToWorker(const WorkerId& worker, const control::Command& command);
  void SendToGateway(const GatewayId& gateway, const control::Command& command);
  void RefuseWhileDraining(const control::GenerateArrived& event);
  bool IsCurrent(const WorkerLink& link) const;
  void ArmAlarm();
  void PublishIfDue();
  void TellLoadIfDue();

  const RouterCoreConfig config_;
  TimeSource& time_;
  const std::vector<RouterObserver*> observers_;

  // Of the strand's thread alone.
  control::Controller controller_;
  std::map<WorkerId, std::shared_ptr<WorkerLink>> workers_;  // accepted streams
  std::map<GatewayId, std::shared_ptr<GatewayLink>> gateways_;
  std::shared_ptr<WorkerLink> registering_;  // while its WorkerRegistered is handled
  Instant armed_ = Instant::Never();         // when `alarm_` fires
  AlarmId alarm_{};
  Instant published_at_;
  bool changed_ = true;           // since the last snapshot
  ClusterLoad load_, told_load_;  // of the last snapshot; what gateways know
  Instant load_told_at_;
  bool draining_ = false;

  mutable Mutex mu_;
  CondVar wake_, drained_;
  std::deque<Task> tasks_ TANDEM_GUARDED_BY(mu_);
  bool alarm_fired_ TANDEM_GUARDED_BY(mu_) = false;
  bool stopping_ TANDEM_GUARDED_BY(mu_) = false;
  bool is_drained_ TANDEM_GUARDED_BY(mu_) = false;
  bool drain_limit_passed_ TANDEM_GUARDED_BY(mu_) = false;
  std::shared_ptr<const control::ControllerSnapshot> snapshot_ TANDEM_GUARDED_BY(mu_);

  std::thread strand_;  // last: it uses all of the above
};

}  // namespace tandem::router
