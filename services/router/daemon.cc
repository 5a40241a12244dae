#include "services/router/daemon.h"

#include <absl/strings/str_cat.h>
#include <grpcpp/health_check_service_interface.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <utility>

#include "scheduler/base/status.h"
#include "services/router/api/admin_service.h"
#include "services/router/api/router_service.h"
#include "services/router/registry/registry_service.h"
#include "services/router/router_core.h"
#include "services/router/router_log.h"
#include "services/router/router_metrics.h"
#include "services/router/tco/tco_page.h"
#include "services/runtime/daemon.h"
#include "services/runtime/fresh_registry.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/link_security.h"
#include "services/runtime/real_time.h"
#include "services/runtime/yaml_file.h"

namespace tandem::router {
namespace {

absl::StatusOr<ledger::PriceList> ReadPrices(const std::string& path) {
  if (path.empty()) return ledger::PriceList();
  ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  return ledger::PriceList::Read(text, path);
}

RouterCoreConfig CoreConfig(const RouterConfig& config) {
  RouterCoreConfig core;
  core.controller.model = config.model_name;
  core.controller.max_queued_requests = config.max_queued_requests;
  core.controller.max_queued_resumes = config.max_queued_resumes;
  core.controller.max_sequences = config.max_sequences;
  core.controller.max_workers = config.max_workers;
  core.controller.max_gateways = config.max_gateways;
  core.controller.heartbeat_interval = Duration::FromSeconds(config.heartbeat_interval_seconds);
  core.controller.worker_lease = Duration::FromSeconds(config.worker_lease_seconds);
  core.controller.reservation_lease = Duration::FromSeconds(config.reservation_lease_seconds);
  core.controller.command_timeout = Duration::FromSeconds(config.command_timeout_seconds);
  core.controller.queue_timeout = Duration::FromSeconds(config.queue_timeout_seconds);
  return core;
}

RouterIdentity Identity(const RouterConfig& config) {
  RouterIdentity self;
  self.router_id = config.router_id.empty() ? absl::StrCat("router-", getpid()) : config.router_id;
  self.epoch = static_cast<uint64_t>(UnixNanoseconds());
  self.model = config.model_name;
  self.heartbeat_interval = Duration::FromSeconds(config.heartbeat_interval_seconds);
  self.worker_lease = Duration::FromSeconds(config.worker_lease_seconds);
  self.gateway_lease = Duration::FromSeconds(config.gateway_lease_seconds);
  return self;
}

RegistryLimits RegistryLimitsOf(const RouterConfig& config) {
  RegistryLimits limits;
  limits.max_streams = size_t{config.max_workers} * 2;
  return limits;
}

RouterServiceLimits RouterLimitsOf(const RouterConfig& config) {
  RouterServiceLimits limits;
  limits.generate.max_prompt_tokens = config.max_prompt_tokens;
  limits.max_streams = size_t{config.max_gateways} * 2;
  return limits;
}

}  // namespace

// In the order of construction: what stands below uses what stands above.
struct RouterDaemon::Parts {
  Parts(const RouterConfig& config, LinkSecurity security, ledger::PriceList prices,
        TimeSource& time)
      : config(config),
        security(std::move(security)),
        identity(Identity(config)),
        metrics(*registry),
        tco(std::move(prices), config.max_workers, *registry),
        core(CoreConfig(config), time, {&log, &metrics}),
        workers(identity, RegistryLimitsOf(config), core, book, tco, time),
        gateways(identity, RouterLimitsOf(config), core, gateway_book, time),
        admin(identity, TANDEM_VERSION, core, book, gateway_book, tco,
              {config.slo_tpot_ms / 1e3, config.slo_ttft_ms / 1e3}, time) {
    // What lost devices cost goes on while nobody tells of it.
    registry->SetBeforeCollect([this, &time] { tco.BookDown(time.Now()); });
  }

  const RouterConfig config;
  const LinkSecurity security;
  const RouterIdentity identity;
  const std::shared_ptr<FreshRegistry> registry = std::make_shared<FreshRegistry>();
  RouterLog log;
  RouterMetrics metrics;
  WorkerBook book;
  GatewayBook gateway_book;
  TcoBook tco;
  std::atomic<bool> serving = false;
  RouterCore core;
  RegistryService workers;
  RouterService gateways;
  AdminService admin;
  std::shared_ptr<ListeningServer> metrics_server, admin_server;
  GrpcServer server;
};

RouterDaemon::RouterDaemon(std::unique_ptr<Parts> parts) : parts_(std::move(parts)) {}

absl::StatusOr<std::unique_ptr<RouterDaemon>> RouterDaemon::Start(const RouterConfig& config,
                                                                  TimeSource& time) {
  RETURN_IF_ERROR(CheckConfig(config));
  ASSIGN_OR_RETURN(LinkSecurity security, LinkSecurity::Make(config.tls));
  ASSIGN_OR_RETURN(ledger::PriceList prices, ReadPrices(config.prices));
  auto daemon = std::unique_ptr<RouterDaemon>(new RouterDaemon(
      std::make_unique<Parts>(config, std::move(security), std::move(prices), time)));
  Parts& parts = *daemon->parts_;
  parts.security.Export(parts.registry, {});
  ASSIGN_OR_RETURN(parts.metrics_server, ServeMetrics(config.metrics_listen, parts.registry));
  const auto not_ready_reason = [&parts] {
    return parts.serving ? "" : "the router starts or drains";
  };
  ASSIGN_OR_RETURN(parts.admin_server,
                   ServeAdmin(config.admin_listen, not_ready_reason, {&parts.admin}, parts.security,
                              {{kTcoPath, [&parts, &time](absl::string_view query) {
                                  return TcoPage(parts.tco, query, time.Now());
                                }}}));
  ASSIGN_OR_RETURN(parts.server, StartGrpcServer(config.listen, {&parts.workers, &parts.gateways},
                                                 parts.security));
  parts.serving = true;
  LogInfo("router_serves", {{"router", parts.identity.router_id},
                            {"version", TANDEM_VERSION},
                            {"listen", config.listen},
                            {"port", parts.server.port},
                            {"tls", parts.security.tls()},
                            {"model", config.model_name}});
  return daemon;
}

RouterDaemon::~RouterDaemon() {
  parts_->serving = false;
  parts_->admin_server = nullptr;
  parts_->metrics_server = nullptr;
  // A deadline in the past: calls are cancelled at once.
  if (parts_->server.server != nullptr)
    parts_->server.server->Shutdown(std::chrono::system_clock::time_point());
}

bool RouterDaemon::Drain() {
  parts_->serving = false;
  parts_->server.server->GetHealthCheckService()->SetServingStatus(false);
  parts_->core.StartDrain();
  const bool drained =
      parts_->core.WaitUntilDrained(Duration::FromSeconds(parts_->config.drain_timeout_seconds));
  LogInfo("router_drained", {{"complete", drained}});
  return drained;
}

int RouterDaemon::port() const { return parts_->server.port; }
int RouterDaemon::admin_port() const { return parts_->admin_server->port; }
int RouterDaemon::metrics_port() const { return parts_->metrics_server->port; }

}  // namespace tandem::router
