#include "services/router/api/admin_service.h"

#include <algorithm>
#include <utility>

#include "services/runtime/log.h"
#include "services/runtime/status_map.h"
#include "services/runtime/tco_words.h"

namespace tandem::router {

AdminService::AdminService(const RouterIdentity& self, std::string version, RouterCore& core,
                           const WorkerBook& book, const GatewayBook& gateways, TcoBook& tco,
                           const ServiceObjective& slo, const TimeSource& time)
    : self_(self),
      version_(std::move(version)),
      core_(core),
      book_(book),
      gateways_(gateways),
      tco_(tco),
      slo_(slo),
      time_(time) {}

grpc::ServerUnaryReactor* AdminService::Status(grpc::CallbackServerContext* context,
                                               const v1::StatusRequest*, v1::StatusReply* reply) {
  const auto snapshot = core_.Snapshot();
  const Instant now = time_.Now();
  reply->set_router_id(self_.router_id);
  reply->set_version(version_);
  reply->set_ready(snapshot->ready);
  reply->set_reason(snapshot->reason);
  reply->set_queued_requests(snapshot->queued_requests);
  reply->set_live_sequences(snapshot->live_sequences);
  for (const control::WorkerSnapshot& worker : snapshot->workers) {
    v1::WorkerStatus& out = *reply->add_workers();
    if (auto entry = book_.Find(worker.description.id, worker.description.incarnation)) {
      *out.mutable_registration() = std::move(entry->registration);
      *out.mutable_heartbeat() = std::move(entry->heartbeat);
    } else {  // its stream ended a moment ago
      out.mutable_registration()->set_worker_id(worker.description.id.value());
    }
    out.set_state(worker.state);
    out.set_state_reason(worker.state_reason);
    out.set_heartbeat_age_seconds(std::max(0.0, (now - worker.last_heartbeat).seconds()));
    for (const WorkerId& holder : worker.group) out.add_group(holder.value());
  }
  for (const auto& [id, address] : gateways_.All()) {
    v1::GatewayStatus& out = *reply->add_gateways();
    out.set_gateway_id(id.value());
    out.set_metrics_address(address);
  }
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  reactor->Finish(grpc::Status::OK);
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::Tco(grpc::CallbackServerContext* context,
                                            const v1::TcoRequest* request, v1::TcoReply* reply) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  // Duration has no NaN: what is no window is none of zero seconds.
  const Duration window = Duration::FromSeconds(SecondsOfPeer(request->window_seconds()));
  const auto devices = tco_.Over(window, time_.Now());
  if (devices.ok()) {
    for (const ledger::DeviceAccount& device : *devices)
      tandem::ToProto(device, reply->add_devices());
    reply->set_window_seconds(window.seconds());
    reply->set_slo_tpot_seconds(slo_.tpot_seconds);
    reply->set_slo_ttft_seconds(slo_.ttft_seconds);
    const TcoBook::Refusals refusals = tco_.refusals();
    reply->set_ledgers_refused(refusals.count);
    reply->set_refusal(refusals.last);
  }
  reactor->Finish(ToGrpc(devices.status()));
  return reactor;
}

grpc::ServerUnaryReactor* AdminService::DrainWorker(grpc::CallbackServerContext* context,
                                                    const v1::DrainWorkerRequest* request,
                                                    v1::DrainWorkerReply*) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  LogInfo("drain_worker", {{"worker", request->worker_id()}});
  core_.DrainWorker(WorkerId(request->worker_id()),
                    [reactor](const absl::Status& status) { reactor->Finish(ToGrpc(status)); });
  return reactor;
}

}  // namespace tandem::router
