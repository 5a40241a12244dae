// Workers, gateways and the router itself come and go; and a router that drains.

#include <atomic>
#include <thread>

#include "tests/integration/router_support.h"

namespace tandem::test {
namespace {

using RouterLoss = RouterTest;

TEST_F(RouterLoss, CutPrefillWorkerIsReplacedForTheSameReservation) {
  StartRouter();
  auto first = std::make_unique<FakeWorker>(address(), WorkerNamed("p-1", "p"));
  first->set_report_prefills(false);
  FakeWorker attention(address(), WorkerNamed("a-1", "af"));
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitState(true);
  gateway.Generate(RequestNamed("r-1"));
  const std::string reservation =
      first->AwaitCommand("a Prefill", IsPrefill).prefill().reservation();
  FakeWorker second(address(), WorkerNamed("p-2", "p"));
  ASSERT_TRUE(second.AwaitRegistered().ok());
  first->Cut();
  EXPECT_EQ(second.AwaitCommand("a Prefill", IsPrefill).prefill().reservation(), reservation);
  AwaitStatus("p-1 is gone", [](const auto& reply) { return reply.workers_size() == 2; });
}

TEST_F(RouterLoss, CutAttentionWorkerMakesTheClusterUnreadyAndItsReturnServesTheNextAttempt) {
  StartRouter();
  auto worker = std::make_unique<FakeWorker>(address(), WorkerNamed("w-1", "paf"));
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitState(true);
  gateway.Generate(RequestNamed("r-1"));
  gateway.AwaitPlaced("r-1");
  worker->Cut();
  gateway.AwaitState(false);
  v1::GenerateRequest resumed = RequestNamed("r-1");
  resumed.mutable_choices(0)->set_attempt(1);
  resumed.mutable_choices(0)->add_emitted_ids(42);
  resumed.set_resume(true);
  gateway.Generate(resumed);
  v1::Registration again = WorkerNamed("w-1", "paf");
  again.set_incarnation(2);
  FakeWorker returned(address(), again);
  gateway.AwaitPlaced("r-1", 0, 1);
  const v1::DecodeCommand decode = returned.AwaitCommand("a Decode", IsDecode).decode();
  EXPECT_EQ(decode.choices(0).attempt(), 1u);
  EXPECT_EQ(decode.choices(0).emitted_ids(0), 42u);
}

TEST_F(RouterLoss, SilentWorkerLosesItsLeaseAndItsStreamIsClosed) {
  router::RouterConfig config = TestRouterConfig();
  config.heartbeat_interval_seconds = 0.1;
  config.worker_lease_seconds = 0.5;
  StartRouter(config);
  FakeWorker worker(address(), WorkerNamed("w-1", "paf"));
  const absl::Status end = worker.AwaitEnd();
  EXPECT_EQ(end.code(), absl::StatusCode::kAborted);
  EXPECT_NE(std::string(end.message()).find("no heartbeat for 0.5 s"), std::string::npos) << end;
  AwaitStatus("no worker", [](const auto& reply) { return reply.workers().empty(); });
}

TEST_F(RouterLoss, SecondStreamOfAWorkerReplacesTheFirst) {
  StartRouter();
  FakeWorker first(address(), WorkerNamed("w-1", "paf"));
  ASSERT_TRUE(first.AwaitRegistered().ok());
  FakeWorker second(address(), WorkerNamed("w-1", "paf"));
  EXPECT_TRUE(second.AwaitRegistered().ok());
  EXPECT_EQ(first.AwaitEnd().code(), absl::StatusCode::kAborted);
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitState(true);
  gateway.Generate(RequestNamed("r-1"));
  gateway.AwaitPlaced("r-1");
  EXPECT_EQ(second.CountCommands(IsDecode), 1u);
}

TEST_F(RouterLoss, OlderIncarnationIsRefusedAndTheNewerGoesOn) {
  StartRouter();
  v1::Registration newer = WorkerNamed("w-1", "paf");
  newer.set_incarnation(5);
  FakeWorker current(address(), newer);
  ASSERT_TRUE(current.AwaitRegistered().ok());
  FakeWorker stale(address(), WorkerNamed("w-1", "paf"));
  EXPECT_EQ(stale.AwaitRegistered().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(stale.AwaitEnd().code(), absl::StatusCode::kFailedPrecondition);
  const v1::StatusReply status =
      AwaitStatus("one worker", [](const auto& reply) { return reply.workers_size() == 1; });
  EXPECT_EQ(status.workers(0).registration().incarnation(), 5u);
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitState(true);
  gateway.Generate(RequestNamed("r-1"));
  gateway.AwaitPlaced("r-1");
  EXPECT_EQ(current.CountCommands(IsDecode), 1u);
}

TEST_F(RouterLoss, RestartedRouterTakesOverLiveSequencesAndKnowsThem) {
  StartRouter();
  auto worker = std::make_unique<FakeWorker>(address(), WorkerNamed("w-1", "paf"));
  auto gateway = std::make_unique<FakeGateway>(address(), HelloFrom("g-1"));
  gateway->AwaitState(true);
  gateway->Generate(RequestNamed("r-1"));
  gateway->AwaitPlaced("r-1");
  RestartRouter();
  EXPECT_FALSE(worker->AwaitEnd().ok());
  EXPECT_FALSE(gateway->AwaitStreamEnd().ok());
  v1::Registration again = WorkerNamed("w-1", "paf");
  v1::SequenceKey& live = *again.add_live();
  live.set_request_id("r-1");
  worker = std::make_unique<FakeWorker>(address(), again);
  ASSERT_TRUE(worker->AwaitRegistered().ok());
  AwaitStatus("the live sequence", [](const auto& reply) { return reply.live_sequences() == 1; });
  // The gateway asks again for what it knows no placement of: answered, not placed a second time.
  gateway = std::make_unique<FakeGateway>(address(), HelloFrom("g-1"));
  gateway->AwaitState(true);
  gateway->Generate(RequestNamed("r-1"));
  EXPECT_EQ(gateway->AwaitPlaced("r-1").attention().worker_id(), "w-1");
  EXPECT_EQ(worker->CountCommands(IsDecode), 0u);
  worker->SendEnded("r-1", 0, 0, v1::END_REASON_EOS);
  AwaitStatus("no live sequence", [](const auto& reply) { return reply.live_sequences() == 0; });
}

TEST_F(RouterLoss, CutGatewayFreesWhatWaitedForIt) {
  StartRouter();
  auto gateway = std::make_unique<FakeGateway>(address(), HelloFrom("g-1"));
  gateway->AwaitWelcome();
  gateway->Generate(RequestNamed("r-1"));
  AwaitStatus("one queued", [](const auto& reply) { return reply.queued_requests() == 1; });
  gateway->Cut();
  AwaitStatus("none queued", [](const auto& reply) { return reply.queued_requests() == 0; });
}

TEST_F(RouterLoss, DrainedFfnWorkerLeavesItsGroupFirst) {
  StartRouter();
  FakeWorker attention(address(), WorkerNamed("a-1", "pa"));
  FakeWorker first(address(), WorkerNamed("f-1", "f"));
  attention.AwaitCommand("a group with f-1", IsGroup);
  FakeWorker second(address(), WorkerNamed("f-2", "f"));
  ASSERT_TRUE(second.AwaitRegistered().ok());
  v1::DrainWorkerRequest request;
  request.set_worker_id("f-1");
  v1::DrainWorkerReply reply;
  {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    const grpc::Status status = Admin()->DrainWorker(&context, request, &reply);
    ASSERT_TRUE(status.ok()) << status.error_message();
  }
  attention.AwaitCommand("a group without f-1", [](const v1::RouterCommand& command) {
    return IsGroup(command) && command.set_group().holders_size() == 1 &&
           command.set_group().holders(0).worker_id() == "f-2";
  });
  first.AwaitCommand("a Drain", IsDrain);
  request.set_worker_id("nobody");
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  EXPECT_EQ(Admin()->DrainWorker(&context, request, &reply).error_code(),
            grpc::StatusCode::NOT_FOUND);
}

TEST_F(RouterLoss, DrainingRouterRefusesNewRequestsAndFinishesWhatIsInPrefill) {
  StartRouter();
  FakeWorker worker(address(), WorkerNamed("w-1", "paf"));
  worker.set_report_prefills(false);
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitState(true);
  gateway.Generate(RequestNamed("in-prefill"));
  gateway.AwaitPlaced("in-prefill");
  std::atomic<bool> drained = false;
  std::thread drain([&] {
    EXPECT_TRUE(router_->Drain());
    drained = true;
  });
  // Asks until the drain has begun: the first refusal.
  v1::RouterSequenceEnd refused;
  const Instant limit = time_.Now() + Duration::Seconds(kDeadline.count());
  for (int i = 0; refused.reason() != v1::END_REASON_FAILED && time_.Now() < limit; i++) {
    const std::string id = absl::StrCat("probe-", i);
    v1::GenerateRequest late =
        RequestNamed(id, 2000);  // past the context: answered at once in either case
    gateway.Generate(late);
    const v1::RouterSequenceEnd end = gateway.AwaitEnd(id);
    if (end.status().code() == static_cast<int>(absl::StatusCode::kUnavailable)) refused = end;
  }
  EXPECT_GT(refused.retry_after_seconds(), 0);
  EXPECT_FALSE(drained);
  worker.SendPrefilled("in-prefill");
  drain.join();
  EXPECT_TRUE(drained);
}

TEST_F(RouterLoss, DrainEndsAtItsTimeoutThoughAPromptIsStillInPrefill) {
  router::RouterConfig config = TestRouterConfig();
  config.drain_timeout_seconds = 0.05;
  StartRouter(config);
  FakeWorker worker(address(), WorkerNamed("w-1", "paf"));
  worker.set_report_prefills(false);
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitState(true);
  gateway.Generate(RequestNamed("r-1"));
  gateway.AwaitPlaced("r-1");
  EXPECT_FALSE(router_->Drain());
}

}  // namespace
}  // namespace tandem::test
