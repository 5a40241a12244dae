#pragma once

// What an operator asks: the cluster's state, what it costs, and to drain a worker.

#include <string>

#include "services/router/api/gateway_book.h"
#include "services/router/dispatch/convert.h"
#include "services/router/registry/worker_book.h"
#include "services/router/router_core.h"
#include "services/router/tco/tco_book.h"
#include "tandem/v1/admin.grpc.pb.h"

namespace tandem::router {

// What a baseline must keep to be compared with; of the devices' time.
struct ServiceObjective {
  double tpot_seconds = 0, ttft_seconds = 0;
};

class AdminService final : public v1::Admin::CallbackService {
 public:
  // All outlive the service. `version` is the router's.
  AdminService(const RouterIdentity& self, std::string version, RouterCore& core,
               const WorkerBook& book, const GatewayBook& gateways, TcoBook& tco,
               const ServiceObjective& slo, const TimeSource& time);

  // From the newest snapshot and each worker's newest heartbeat.
  grpc::ServerUnaryReactor* Status(grpc::CallbackServerContext* context,
                                   const v1::StatusRequest* request,
                                   v1::StatusReply* reply) override;
  // Each device's account over the window. INVALID_ARGUMENT: no window; UNAVAILABLE: nothing is
  // known of it.
  grpc::ServerUnaryReactor* Tco(grpc::CallbackServerContext* context, const v1::TcoRequest* request,
                                v1::TcoReply* reply) override;
  // NOT_FOUND: no such worker is registered.
  grpc::ServerUnaryReactor* DrainWorker(grpc::CallbackServerContext* context,
                                        const v1::DrainWorkerRequest* request,
                                        v1::DrainWorkerReply* reply) override;

 private:
  const RouterIdentity self_;
  const std::string version_;
  RouterCore& core_;
  const WorkerBook& book_;
  const GatewayBook& gateways_;
  TcoBook& tco_;
  const ServiceObjective slo_;
  const TimeSource& time_;
};

}  // namespace tandem::router
