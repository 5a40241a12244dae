#pragma once

// tandem_router_*: what the router took, placed and refused, and what it knows of the cluster.

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>

#include <map>

#include "services/router/links.h"
#include "services/runtime/label_cap.h"

namespace tandem::router {

// Workers that have series of their own; what is placed on later ones counts as worker "other".
inline constexpr size_t kMaxWorkerSeries = 1024;

class RouterMetrics final : public RouterObserver {
 public:
  explicit RouterMetrics(prometheus::Registry& registry);  // outlives this

  void Handled(const control::Event& event, const std::vector<control::Command>& commands,
               Instant now) override;
  void Published(const control::ControllerSnapshot& snapshot) override;

 private:
  struct Waiting {
    Instant arrived;
    GatewayId gateway;
  };

  void Count(const control::Event& event, Instant now);
  // Whether the prompt is computed in another numerics class than the tokens after it.
  bool CrossesClasses(const control::TellPlaced& placed) const;
  // A request counts once, with the answer to the first of its choices.
  void Answered(const RequestId& request, const std::string& outcome);

  prometheus::Family<prometheus::Counter>&
      requests_;  // by outcome: placed, or a status code's name
  prometheus::Family<prometheus::Counter>& placements_;  // by attention worker, sequences
  prometheus::Family<prometheus::Gauge>& workers_;       // by state
  prometheus::Counter& refusals_;
  prometheus::Counter& leases_expired_;
  prometheus::Counter& workers_lost_;
  prometheus::Counter& shards_lost_;
  prometheus::Counter& kv_class_crossings_;
  prometheus::Gauge& queued_;
  prometheus::Gauge& sequences_;
  prometheus::Gauge& ready_;
  prometheus::Histogram& queue_seconds_;  // from arrival to placement
  LabelCap worker_labels_{kMaxWorkerSeries};
  std::map<WorkerId, NumericsClass> classes_;  // of the registered workers
  // Requests without an answer; at most what the controller's queue and workers hold.
  std::map<RequestId, Waiting> waiting_;
};

}  // namespace tandem::router
