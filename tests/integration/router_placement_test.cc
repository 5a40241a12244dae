// Every topology's placement over real gRPC, with fake workers and a fake gateway.

#include "tests/integration/router_support.h"

namespace tandem::test {
namespace {

using RouterPlacement = RouterTest;

TEST_F(RouterPlacement, ColocatedDecodesWithLocalPrefillAndCarriesTheWholeRequest) {
  StartRouter();
  FakeGateway gateway(address(), HelloFrom("g-1"));
  EXPECT_EQ(gateway.AwaitWelcome().router_id(), "router-under-test");
  EXPECT_NE(gateway.AwaitState(false).reason().find("no worker for model 'fake-model'"),
            std::string::npos);
  FakeWorker worker(address(), WorkerNamed("w-1", "paf"));
  ASSERT_TRUE(worker.AwaitRegistered().ok());
  const v1::ClusterState state = gateway.AwaitState(true);
  ASSERT_EQ(state.attention_workers_size(), 1);
  EXPECT_EQ(state.attention_workers(0).address(), "w-1.test:1");
  EXPECT_EQ(state.context_tokens(), 1024u);

  v1::GenerateRequest request = RequestNamed("r-1", 20, 2);
  request.mutable_sampling()->set_temperature(0.5);
  request.mutable_sampling()->set_top_logprobs(0);
  (*request.mutable_sampling()->mutable_logit_bias())[7] = -100;
  request.mutable_stop()->add_stop_token_ids(9);
  gateway.Generate(request);
  const v1::Placed placed = gateway.AwaitPlaced("r-1");
  EXPECT_EQ(placed.topology(), "colocated");
  EXPECT_EQ(placed.prefill_worker(), "w-1");
  EXPECT_EQ(placed.attention().worker_id(), "w-1");
  EXPECT_EQ(gateway.AwaitPlaced("r-1", 1).attention().address(), "w-1.test:1");

  const v1::DecodeCommand decode = worker.AwaitCommand("a Decode", IsDecode).decode();
  EXPECT_TRUE(decode.local_prefill());
  EXPECT_EQ(decode.gateway_id(), "g-1");
  EXPECT_EQ(decode.prompt_ids_size(), 20);
  ASSERT_EQ(decode.choices_size(), 2);
  EXPECT_EQ(decode.choices(1).seed(), 2u);
  EXPECT_EQ(decode.sampling().temperature(), 0.5f);
  EXPECT_TRUE(decode.sampling().has_top_logprobs());
  EXPECT_EQ(decode.sampling().logit_bias().at(7), -100.0f);
  EXPECT_EQ(decode.stop().max_tokens(), 8u);
  EXPECT_EQ(decode.stop().stop_token_ids(0), 9u);
  EXPECT_EQ(worker.CountCommands(IsPrefill), 0u);
  AwaitStatus("two live sequences", [](const auto& reply) { return reply.live_sequences() == 2; });
  worker.SendEnded("r-1", 0, 0, v1::END_REASON_EOS);
  worker.SendEnded("r-1", 1, 0, v1::END_REASON_LENGTH);
  AwaitStatus("no live sequence", [](const auto& reply) { return reply.live_sequences() == 0; });
}

TEST_F(RouterPlacement, PdSendsThePromptToAPrefillWorkerThatNamesTheReservation) {
  StartRouter();
  FakeWorker prefill(address(), WorkerNamed("p-1", "p"));
  FakeWorker attention(address(), WorkerNamed("a-1", "af"));
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitState(true);
  gateway.Generate(RequestNamed("r-1"));
  const v1::Placed placed = gateway.AwaitPlaced("r-1");
  EXPECT_EQ(placed.topology(), "pd");
  EXPECT_EQ(placed.prefill_worker(), "p-1");
  EXPECT_EQ(placed.attention().worker_id(), "a-1");
  const v1::DecodeCommand decode = attention.AwaitCommand("a Decode", IsDecode).decode();
  EXPECT_FALSE(decode.local_prefill());
  EXPECT_GT(decode.reservation_lease_seconds(), 0);
  const v1::PrefillCommand command = prefill.AwaitCommand("a Prefill", IsPrefill).prefill();
  EXPECT_EQ(command.reservation(), decode.reservation());
  EXPECT_EQ(command.attention_address(), "a-1.test:1");
  EXPECT_EQ(command.ids_size(), 20);
}

TEST_F(RouterPlacement, AfdGroupsTheFfnWorkersAndPrefillsLocally) {
  StartRouter();
  FakeGateway gateway(address(), HelloFrom("g-1"));
  FakeWorker attention(address(), WorkerNamed("a-1", "pa"));
  ASSERT_TRUE(attention.AwaitRegistered().ok());
  EXPECT_NE(gateway.AwaitState(false).reason(), "");
  FakeWorker ffn(address(), WorkerNamed("f-1", "f"));
  const v1::SetGroupCommand group = attention.AwaitCommand("a group", IsGroup).set_group();
  EXPECT_EQ(group.holders(0).worker_id(), "f-1");
  EXPECT_EQ(group.holders(0).address(), "f-1.test:1");
  EXPECT_EQ(group.holders(0).shard_epoch(), 1u);
  EXPECT_GT(group.router_epoch(), 0u);
  gateway.AwaitState(true);
  gateway.Generate(RequestNamed("r-1"));
  EXPECT_EQ(gateway.AwaitPlaced("r-1").topology(), "afd");
  EXPECT_TRUE(attention.AwaitCommand("a Decode", IsDecode).decode().local_prefill());
}

TEST_F(RouterPlacement, PdAfdUsesThreeWorkersAndStatusShowsThem) {
  StartRouter();
  FakeWorker prefill(address(), WorkerNamed("p-1", "p"));
  FakeWorker attention(address(), WorkerNamed("a-1", "a"));
  FakeWorker ffn(address(), WorkerNamed("f-1", "f"));
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitState(true);
  gateway.Generate(RequestNamed("r-1"));
  const v1::Placed placed = gateway.AwaitPlaced("r-1");
  EXPECT_EQ(placed.topology(), "pd-afd");
  EXPECT_EQ(placed.prefill_worker(), "p-1");
  EXPECT_EQ(placed.attention().worker_id(), "a-1");

  v1::Heartbeat heartbeat;
  heartbeat.set_kv_blocks_free(60);
  heartbeat.set_elapsed_seconds(2.5);
  v1::LedgerEntry& entry = *heartbeat.add_ledger();
  entry.set_stage("attention");
  entry.set_state("busy");
  entry.set_seconds(1.5);
  attention.SendHeartbeat(heartbeat);
  // Heartbeats are told at once, the rest as the strand published it last.
  const v1::StatusReply status = AwaitStatus("a heartbeat of a-1, ready", [](const auto& reply) {
    return reply.workers_size() == 3 && reply.workers(0).heartbeat().ledger_size() == 1 &&
           reply.ready();
  });
  EXPECT_EQ(status.router_id(), "router-under-test");
  EXPECT_TRUE(status.ready());
  EXPECT_EQ(status.workers(0).registration().worker_id(), "a-1");
  EXPECT_EQ(status.workers(0).state(), "ready");
  EXPECT_EQ(status.workers(0).group(0), "f-1");
  EXPECT_EQ(status.workers(0).heartbeat().ledger(0).seconds(), 1.5);
  EXPECT_EQ(status.workers(1).registration().numerics().ffn(), "fake/whole");
  EXPECT_GE(status.workers(2).heartbeat_age_seconds(), 0);
}

TEST_F(RouterPlacement, RefusedDecodeGoesToTheNextWorker) {
  StartRouter();
  const auto full = [](const v1::RouterCommand& command) -> std::optional<absl::Status> {
    if (command.has_decode())
      return absl::ResourceExhaustedError("worker a-1: 0 of 64 KV blocks free");
    return absl::OkStatus();
  };
  FakeWorker first(address(), WorkerNamed("a-1", "paf"), full);
  ASSERT_TRUE(first.AwaitRegistered().ok());
  FakeWorker second(address(), WorkerNamed("a-2", "paf"));
  ASSERT_TRUE(second.AwaitRegistered().ok());
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitState(true);
  gateway.Generate(RequestNamed("r-1"));
  EXPECT_EQ(gateway.AwaitPlaced("r-1").attention().worker_id(), "a-2");
  EXPECT_EQ(first.CountCommands(IsDecode), 1u);
}

TEST_F(RouterPlacement, AbortFreesOnEveryWorker) {
  StartRouter();
  FakeWorker prefill(address(), WorkerNamed("p-1", "p"));
  prefill.set_report_prefills(false);  // the prompt stays in prefill
  FakeWorker attention(address(), WorkerNamed("a-1", "af"));
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitState(true);
  gateway.Generate(RequestNamed("r-1", 20, 2));
  gateway.AwaitPlaced("r-1", 1);
  prefill.AwaitCommand("a Prefill", IsPrefill);
  gateway.Abort("r-1");
  attention.AwaitHolds(0);
  const v1::ReleaseCommand release = prefill.AwaitCommand("a Release", IsRelease).release();
  EXPECT_EQ(release.reservation(),
            prefill.AwaitCommand("a Prefill", IsPrefill).prefill().reservation());
  EXPECT_EQ(release.reason(), v1::END_REASON_CANCELLED);
  AwaitStatus("no live sequence", [](const auto& reply) { return reply.live_sequences() == 0; });
}

TEST_F(RouterPlacement, AbortOfAQueuedRequestEndsItAtTheRouter) {
  StartRouter();
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitWelcome();
  gateway.Generate(RequestNamed("r-1"));
  gateway.Abort("r-1");
  EXPECT_EQ(gateway.AwaitEnd("r-1").reason(), v1::END_REASON_CANCELLED);
}

}  // namespace
}  // namespace tandem::test
