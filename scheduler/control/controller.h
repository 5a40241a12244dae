#pragma once

// The router's mind: queue, placement, groups. Events in, commands out; deterministic; run by
// services/router on one strand and by scheduler/sim on virtual time.

#include <memory>
#include <string>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/control/events.h"
#include "scheduler/view/worker.h"

namespace tandem::control {

struct ControllerConfig {
  std::string model;                       // workers of another model are refused
  uint32_t max_queued_requests = 1024;     // past it: kResourceExhausted with retry_after
  uint32_t max_queued_resumes = 4096;      // likewise for resumes, which stand in front of them
  uint32_t max_sequences = 65536;          // placed and not ended; past it requests stay queued
  uint32_t max_workers = 1024;             // past it: the registration is refused
  uint32_t max_gateways = 1024;            // past it: its requests are answered kResourceExhausted
  uint32_t max_unanswered_commands = 256;  // per worker; past it nothing is placed there
  uint32_t max_prefill_workers = 4;        // tried for one reservation
  Duration heartbeat_interval = Duration::Seconds(1);
  Duration worker_lease = Duration::Seconds(5);  // silence after which a worker is lost
  // Without a KV frame: the base, and more for each prompt token that the prefill worker has in
  // hand, this one's included. 50 ms is ten times what a token takes on one slow core.
  Duration reservation_lease = Duration::Seconds(30);
  Duration reservation_lease_per_token = Duration::Milliseconds(50);
  Duration command_timeout = Duration::Seconds(10);  // without an answer: the worker is closed
  Duration queue_timeout =
      Duration::Seconds(60);  // queued for so long without a ready topology: kUnavailable
  Duration shard_suspicion =
      Duration::Seconds(30);  // a holder that was reported lost stands last for so long
};

// One worker as `tandemctl status` and the metrics show it.
struct WorkerSnapshot {
  WorkerDescription description;
  WorkerLoad load;
  std::string state;  // "ready", "waiting_for_group", "draining"
  std::string state_reason;
  Instant last_heartbeat;
  std::vector<WorkerId> group;  // attention: FFN holders, best first
};

// An immutable copy for readers on other threads.
struct ControllerSnapshot {
  bool ready = false;
  std::string reason;
  uint32_t queued_requests = 0;
  uint32_t open_requests =
      0;  // queued, being admitted or in prefill: what a draining router waits for
  uint32_t live_sequences = 0;
  std::vector<WorkerSnapshot> workers;  // ascending id
};

// Not thread-safe: one strand. How it treats each event: registry.cc (workers), groups.cc (FFN
// groups), requests.cc (Generate, Abort, ends), placement.cc (queue to worker); the four state
// machines have a header each.
class Controller {
 public:
  explicit Controller(const ControllerConfig& config);
  ~Controller();

  // Handles one event at `now` (never before the last one's). The commands are in the order in
  // which they must be sent.
  std::vector<Command> Handle(const Event& event, Instant now);
  // When TimePassed is due next; Never() when nothing waits.
  Instant NextDeadline() const;
  ControllerSnapshot Snapshot() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem::control
