#pragma once

// How the core reaches its peers: plain interfaces, so that the core knows no gRPC and tests need
// none.

#include <absl/status/status.h>

#include <cstdint>
#include <vector>

#include "scheduler/control/controller.h"
#include "scheduler/control/events.h"

namespace tandem::router {

// One stream of one worker. Called on the strand; never blocks. A link whose outgoing queue is full
// ends itself, and reports so as its loss.
class WorkerLink {
 public:
  virtual ~WorkerLink() = default;

  // Fixed before the link is given to the core.
  virtual const WorkerId& worker() const = 0;
  virtual uint64_t incarnation() const = 0;

  // AnswerRegistration or one of Send*. A refused registration ends the stream once it is written.
  virtual void Send(const control::Command& command) = 0;
  // Ends the stream; what is still queued for it is dropped.
  virtual void Close(const absl::Status& why) = 0;
};

// How full the cluster is: ClusterLoad of router.proto.
struct ClusterLoad {
  uint32_t queued_requests = 0;
  uint32_t running_sequences = 0;
  uint64_t kv_blocks = 0, kv_blocks_free = 0;
  uint32_t block_tokens = 0;
  bool operator==(const ClusterLoad&) const = default;
};
ClusterLoad LoadOf(const control::ControllerSnapshot& snapshot);

// One stream of one gateway; rules as above.
class GatewayLink {
 public:
  virtual ~GatewayLink() = default;
  virtual const GatewayId& gateway() const = 0;
  // One of Tell*.
  virtual void Send(const control::Command& command) = 0;
  virtual void Send(const ClusterLoad& load) = 0;
  virtual void Close(const absl::Status& why) = 0;
};

// Sees what the controller is told and what it answers, on the strand: metrics, logs.
class RouterObserver {
 public:
  virtual ~RouterObserver() = default;
  virtual void Handled(const control::Event& event, const std::vector<control::Command>& commands,
                       Instant now) = 0;
  virtual void Published(const control::ControllerSnapshot& snapshot) = 0;
};

}  // namespace tandem::router
