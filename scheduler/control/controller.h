#pragma once

// The router's mind: queue, placement, groups. Events in, commands out; deterministic; run by services/router on one
// strand and by scheduler/sim on virtual time.

#include <memory>
#include <string>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/control/events.h"
#include "scheduler/view/worker.h"

namespace tandem::control {

struct ControllerConfig {
  std::string model;                                    // workers of another model are refused
  uint32_t max_queued_requests = 1024;                  // past it: kResourceExhausted with retry_after
  Duration heartbeat_interval = Duration::Seconds(1);
  Duration worker_lease = Duration::Seconds(5);         // silence after which a worker is lost
  Duration reservation_lease = Duration::Seconds(30);   // without a KV frame
  Duration command_timeout = Duration::Seconds(10);     // without an answer: the worker is closed
  Duration queue_timeout = Duration::Seconds(60);       // queued for so long without a ready topology: kUnavailable
};

// One worker as `tandemctl status` and the metrics show it.
struct WorkerSnapshot {
  WorkerDescription description;
  WorkerLoad load;
  std::string state;               // "ready", "waiting_for_group", "draining"
  std::string state_reason;
  Instant last_heartbeat;
  std::vector<WorkerId> group;     // attention: FFN holders, best first
};

// An immutable copy for readers on other threads.
struct ControllerSnapshot {
  bool ready = false;
  std::string reason;
  uint32_t queued_requests = 0;
  uint32_t live_sequences = 0;
  std::vector<WorkerSnapshot> workers;  // ascending id
};

// Not thread-safe: one strand.
class Controller {
 public:
  explicit Controller(const ControllerConfig& config);
  ~Controller();

  // Handles one event at `now` (never before the last one's). The commands are in the order in which they must be sent.
  std::vector<Command> Handle(const Event& event, Instant now);
  // When TimePassed is due next; Never() when nothing waits.
  Instant NextDeadline() const;
  ControllerSnapshot Snapshot() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace tandem::control
