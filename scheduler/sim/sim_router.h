#pragma once

// The router's shell on virtual time: streams become events for the production Controller, its
// commands messages.

#include <map>
#include <memory>

#include "scheduler/control/controller.h"
#include "scheduler/sim/world.h"

namespace tandem::sim {

class SimRouter {
 public:
  explicit SimRouter(World& world);

  void Start();
  void Stop();  // all streams break; what the controller knew is gone
  bool up() const { return controller_ != nullptr; }
  const control::Controller* controller() const { return controller_.get(); }

  // What a process does after it has dialled; `stream` leads here.
  void OnRegister(SimWorker& worker, const std::shared_ptr<Stream>& stream,
                  const WorkerDescription& description);
  void OnHello(SimGateway& gateway, const std::shared_ptr<Stream>& stream);
  void OnEvent(const control::Event& event);
  void OnWorkerBroken(const WorkerId& worker, const Stream* stream);
  void OnGatewayBroken(const GatewayId& gateway, const Stream* stream);

 private:
  struct WorkerEnd {
    SimWorker* worker = nullptr;
    std::shared_ptr<Stream> stream;
    uint64_t incarnation = 0;
  };
  struct GatewayEnd {
    SimGateway* gateway = nullptr;
    std::shared_ptr<Stream> stream;
  };
  void Carry(const control::Command& command);
  void ToWorker(const WorkerId& worker, const control::Command& command, uint64_t bytes);
  void ToGateway(const GatewayId& gateway, const control::Command& command);
  void Arm();

  World& world_;
  std::unique_ptr<control::Controller> controller_;
  uint64_t life_ = 0;  // restarts: an alarm of an older one does nothing
  Instant armed_ = Instant::Never();
  std::map<WorkerId, WorkerEnd> workers_;
  std::map<GatewayId, GatewayEnd> gateways_;
};

}  // namespace tandem::sim
