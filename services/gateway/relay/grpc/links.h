#pragma once

// The relay's streams over gRPC: one to each router, one to each attention worker.

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/gateway/relay/relay.h"
#include "services/runtime/link_security.h"
#include "services/runtime/mutex.h"

namespace tandem::gateway {

struct GatewayIdentity {
  std::string gateway_id;  // new with each process
  std::string model;
  std::string metrics_address = {};  // host:port of its /metrics; empty: it serves none
};

// Makes and keeps the links.
class GrpcLinks final : public WorkerDialer {
 public:
  // `time` outlives this.
  GrpcLinks(GatewayIdentity identity, TimeSource& time, LinkSecurity security = {});
  ~GrpcLinks() override;  // stops

  // Dials the routers, in this order; from now on links report to `relay`.
  void Start(const std::shared_ptr<Relay>& relay, const std::vector<std::string>& routers);
  // Shuts the relay, then parks every link: neither calls the other from then on. Idempotent.
  void Stop();

  WorkerLink* Link(const WorkerId& worker) override;
  void Forget(const WorkerId& worker) override;

 private:
  class Router;
  class Worker;
  const GatewayIdentity identity_;
  TimeSource& time_;
  const LinkSecurity security_;
  Mutex mu_;
  std::weak_ptr<Relay> relay_ TANDEM_GUARDED_BY(mu_);
  std::vector<std::unique_ptr<Router>> routers_;
  std::map<WorkerId, std::unique_ptr<Worker>> workers_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::gateway
