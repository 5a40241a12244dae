#include "services/router/router_metrics.h"

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include <variant>

namespace tandem::router {
namespace {

const prometheus::Histogram::BucketBoundaries kQueueSeconds = {
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1,
    2.5,   5,      7.5,   10,   15,    20,   30,  40,   60};
constexpr const char* kStates[] = {"ready", "waiting_for_group", "draining"};

prometheus::Counter& OneCounter(prometheus::Registry& registry, const char* name,
                                const char* help) {
  return prometheus::BuildCounter().Name(name).Help(help).Register(registry).Add({});
}
prometheus::Gauge& OneGauge(prometheus::Registry& registry, const char* name, const char* help) {
  return prometheus::BuildGauge().Name(name).Help(help).Register(registry).Add({});
}

std::string OutcomeOf(const SequenceEnd& end) {
  if (end.reason == EndReason::kCancelled) return "cancelled";
  if (end.reason == EndReason::kSuperseded) return "superseded";
  return absl::AsciiStrToLower(absl::StatusCodeToString(end.status.code()));
}

}  // namespace

RouterMetrics::RouterMetrics(prometheus::Registry& registry)
    : requests_(
          prometheus::BuildCounter()
              .Name("tandem_router_requests_total")
              .Help(
                  "Requests answered, by outcome: placed, cancelled, superseded or a status code.")
              .Register(registry)),
      placements_(prometheus::BuildCounter()
                      .Name("tandem_router_placements_total")
                      .Help("Sequences placed, by attention worker.")
                      .Register(registry)),
      workers_(prometheus::BuildGauge()
                   .Name("tandem_router_workers")
                   .Help("Registered workers, by state.")
                   .Register(registry)),
      refusals_(OneCounter(registry, "tandem_router_registration_refusals_total",
                           "Registrations refused.")),
      leases_expired_(
          OneCounter(registry, "tandem_router_leases_expired_total", "Workers lost by silence.")),
      workers_lost_(
          OneCounter(registry, "tandem_router_workers_lost_total", "Worker streams that ended.")),
      shards_lost_(
          OneCounter(registry, "tandem_router_shards_lost_total", "FFN holders reported lost.")),
      kv_class_crossings_(OneCounter(
          registry, "tandem_router_kv_class_crossings_total",
          "Sequences placed whose prompt another numerics class computes than their tokens.")),
      queued_(OneGauge(registry, "tandem_router_queued_requests",
                       "Requests that wait for a placement.")),
      sequences_(
          OneGauge(registry, "tandem_router_sequences_live", "Sequences placed and not ended.")),
      ready_(OneGauge(registry, "tandem_router_cluster_ready",
                      "1 when some topology can serve a request.")),
      queue_seconds_(prometheus::BuildHistogram()
                         .Name("tandem_router_queue_seconds")
                         .Help("From a request's arrival to its placement.")
                         .Register(registry)
                         .Add({}, kQueueSeconds)) {
  for (const char* state : kStates) workers_.Add({{"state", state}}).Set(0);
  requests_.Add({{"outcome", "placed"}});
}

void RouterMetrics::Handled(const control::Event& event,
                            const std::vector<control::Command>& commands, Instant now) {
  Count(event, now);
  for (const control::Command& command : commands) {
    if (const auto* placed = std::get_if<control::TellPlaced>(&command)) {
      placements_.Add({{"worker", worker_labels_.Of(placed->attention_worker.value())}})
          .Increment();
      if (CrossesClasses(*placed)) kv_class_crossings_.Increment();
      if (const auto found = waiting_.find(placed->sequence.request); found != waiting_.end()) {
        queue_seconds_.Observe((now - found->second.arrived).seconds());
      }
      Answered(placed->sequence.request, "placed");
    } else if (const auto* end = std::get_if<control::TellEnd>(&command)) {
      Answered(end->sequence.request, OutcomeOf(end->end));
    } else if (const auto* answer = std::get_if<control::AnswerRegistration>(&command)) {
      if (!answer->status.ok()) {
        refusals_.Increment();
      } else if (const auto* registered = std::get_if<control::WorkerRegistered>(&event)) {
        classes_[registered->worker.id] = registered->worker.numerics;
      }
    } else if (const auto* close = std::get_if<control::CloseWorker>(&command)) {
      if (absl::StartsWith(close->reason, "no heartbeat")) leases_expired_.Increment();
    }
  }
}

void RouterMetrics::Count(const control::Event& event, Instant now) {
  if (const auto* generate = std::get_if<control::GenerateArrived>(&event)) {
    waiting_.try_emplace(generate->spec.request, Waiting{now, generate->gateway});
  } else if (const auto* lost = std::get_if<control::GatewayLost>(&event)) {
    std::erase_if(waiting_,
                  [&](const auto& entry) { return entry.second.gateway == lost->gateway; });
  } else if (std::holds_alternative<control::WorkerLost>(event)) {
    workers_lost_.Increment();
  } else if (std::holds_alternative<control::ShardLost>(event)) {
    shards_lost_.Increment();
  }
}

bool RouterMetrics::CrossesClasses(const control::TellPlaced& placed) const {
  const auto prefill = classes_.find(placed.prefill_worker);
  const auto attention = classes_.find(placed.attention_worker);
  return prefill != classes_.end() && attention != classes_.end() &&
         prefill->second.prefill != attention->second.attention;
}

void RouterMetrics::Answered(const RequestId& request, const std::string& outcome) {
  if (waiting_.erase(request) > 0) requests_.Add({{"outcome", outcome}}).Increment();
}

void RouterMetrics::Published(const control::ControllerSnapshot& snapshot) {
  queued_.Set(snapshot.queued_requests);
  sequences_.Set(snapshot.live_sequences);
  ready_.Set(snapshot.ready ? 1 : 0);
  std::map<std::string, int> count;
  classes_.clear();
  for (const control::WorkerSnapshot& worker : snapshot.workers) {
    count[worker.state]++;
    classes_[worker.description.id] = worker.description.numerics;
  }
  for (const char* state : kStates) workers_.Add({{"state", state}}).Set(count[state]);
}

}  // namespace tandem::router
