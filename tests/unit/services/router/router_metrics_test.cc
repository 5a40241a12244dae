#include "services/router/router_metrics.h"

#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

namespace tandem::router {
namespace {

Instant At(int64_t ms) { return Instant() + Duration::Milliseconds(ms); }

control::GenerateArrived Arrival(const std::string& id) {
  control::GenerateArrived event{GatewayId("g-1"), {}};
  event.spec.request = RequestId(id);
  return event;
}

class RouterMetricsTest : public testing::Test {
 protected:
  void ExpectLine(const std::string& line) {
    const std::string text = "\n" + prometheus::TextSerializer().Serialize(registry_.Collect());
    EXPECT_NE(text.find("\n" + line + "\n"), std::string::npos) << line << "\nnot in\n" << text;
  }
  prometheus::Registry registry_;
  RouterMetrics metrics_{registry_};
};

TEST_F(RouterMetricsTest, RequestCountsOnceByOutcomeAndItsQueueTimeIsArrivalToPlacement) {
  const control::TellPlaced first{GatewayId("g-1"), {RequestId("r-1"), 0, 0}, "pd",
                                  WorkerId("p"),    WorkerId("a-1"),          ""};
  control::TellPlaced second = first;
  second.sequence.choice = 1;
  metrics_.Handled(Arrival("r-1"), {}, At(0));
  metrics_.Handled(control::CommandAnswered{}, {first, second}, At(30));
  ExpectLine("tandem_router_requests_total{outcome=\"placed\"} 1");
  ExpectLine("tandem_router_placements_total{worker=\"a-1\"} 2");
  ExpectLine("tandem_router_queue_seconds_count 1");
  ExpectLine("tandem_router_queue_seconds_sum 0.03");
  const control::TellEnd full{GatewayId("g-1"),
                              {RequestId("r-2"), 0, 0},
                              {EndReason::kFailed, absl::ResourceExhaustedError("full")},
                              {}};
  metrics_.Handled(Arrival("r-2"), {full}, At(40));
  ExpectLine("tandem_router_requests_total{outcome=\"resource_exhausted\"} 1");
  ExpectLine("tandem_router_queue_seconds_count 1");
}

TEST_F(RouterMetricsTest, APromptOfAnotherClassIsACrossing) {
  const auto worker = [](const char* id, const char* prefill, const char* attention) {
    control::WorkerSnapshot snapshot;
    snapshot.description.id = WorkerId(id);
    snapshot.description.numerics = {prefill, attention, ""};
    return snapshot;
  };
  control::ControllerSnapshot snapshot;
  snapshot.workers = {worker("a-cpu", "", "cpu"), worker("a-gpu", "", "gpu"),
                      worker("p-cpu", "cpu", "")};
  metrics_.Published(snapshot);
  control::TellPlaced placed{GatewayId("g-1"),  {RequestId("r-1"), 0, 0}, "pd",
                             WorkerId("p-cpu"), WorkerId("a-cpu"),        ""};
  metrics_.Handled(control::CommandAnswered{}, {placed}, At(0));
  ExpectLine("tandem_router_kv_class_crossings_total 0");
  placed.attention_worker = WorkerId("a-gpu");
  metrics_.Handled(control::CommandAnswered{}, {placed}, At(0));
  ExpectLine("tandem_router_kv_class_crossings_total 1");
  // One that no snapshot has shown yet.
  control::WorkerRegistered registered;
  registered.worker.id = WorkerId("a-new");
  registered.worker.numerics.attention = "gpu";
  const auto answer = [](absl::Status status) {
    return control::AnswerRegistration{WorkerId("a-new"), 1, std::move(status)};
  };
  placed.attention_worker = registered.worker.id;
  metrics_.Handled(registered, {answer(absl::NotFoundError("x"))}, At(0));
  metrics_.Handled(control::CommandAnswered{}, {placed}, At(0));
  ExpectLine("tandem_router_kv_class_crossings_total 1");
  metrics_.Handled(registered, {answer(absl::OkStatus())}, At(0));
  metrics_.Handled(control::CommandAnswered{}, {placed}, At(0));
  ExpectLine("tandem_router_kv_class_crossings_total 2");
  placed.attention_worker = WorkerId("gone");
  metrics_.Handled(control::CommandAnswered{}, {placed}, At(0));
  ExpectLine("tandem_router_kv_class_crossings_total 2");
}

TEST_F(RouterMetricsTest, LossesRefusalsAndExpiredLeasesAreCountedApart) {
  metrics_.Handled(control::WorkerRegistered{},
                   {control::AnswerRegistration{WorkerId("w"), 1, absl::NotFoundError("x")}},
                   At(0));
  metrics_.Handled(control::TimePassed{},
                   {control::CloseWorker{WorkerId("w"), 1, "no heartbeat for 5 s"}}, At(0));
  metrics_.Handled(control::TimePassed{},
                   {control::CloseWorker{WorkerId("w"), 1, "command 7 has no answer"}}, At(0));
  metrics_.Handled(control::WorkerLost{}, {}, At(0));
  ExpectLine("tandem_router_registration_refusals_total 1");
  ExpectLine("tandem_router_leases_expired_total 1");
  ExpectLine("tandem_router_workers_lost_total 1");
}

// Goal: workers that come under ever new names do not fill the registry.
TEST_F(RouterMetricsTest, WorkersPastTheBoundCountAsOther) {
  for (size_t i = 0; i < kMaxWorkerSeries + 3; i++) {
    const control::TellPlaced placed{GatewayId("g-1"),
                                     {RequestId("r"), 0, 0},
                                     "pd",
                                     WorkerId("p"),
                                     WorkerId("a-" + std::to_string(i)),
                                     ""};
    metrics_.Handled(control::CommandAnswered{}, {placed}, At(0));
  }
  ExpectLine("tandem_router_placements_total{worker=\"a-1023\"} 1");
  ExpectLine("tandem_router_placements_total{worker=\"other\"} 3");
  const std::string text = prometheus::TextSerializer().Serialize(registry_.Collect());
  EXPECT_EQ(text.find("a-1024"), std::string::npos);
}

TEST_F(RouterMetricsTest, GaugesFollowTheSnapshot) {
  control::ControllerSnapshot snapshot;
  snapshot.ready = true;
  snapshot.queued_requests = 3;
  snapshot.live_sequences = 4;
  snapshot.workers.resize(2);
  snapshot.workers[0].state = "ready";
  snapshot.workers[1].state = "draining";
  metrics_.Published(snapshot);
  ExpectLine("tandem_router_queued_requests 3");
  ExpectLine("tandem_router_sequences_live 4");
  ExpectLine("tandem_router_cluster_ready 1");
  ExpectLine("tandem_router_workers{state=\"ready\"} 1");
  snapshot.workers.clear();
  metrics_.Published(snapshot);
  ExpectLine("tandem_router_workers{state=\"ready\"} 0");
  ExpectLine("tandem_router_workers{state=\"draining\"} 0");
}

}  // namespace
}  // namespace tandem::router
