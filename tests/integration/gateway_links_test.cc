// The gateway's streams over real gRPC: what it says to routers and workers, what it makes of what
// they say, and what happens to a request when a stream is lost, refused or replaced.

#include "tests/integration/gateway_links_fixture.h"

namespace tandem::gateway {
namespace {

using ::testing::ElementsAre;

TEST_F(GatewayLinksTest, RequestGoesToTheRouterAndItsTokensComeFromTheWorker) {
  Begin();
  const v1::GatewayHello hello = router_.AwaitHello(0).hello();
  EXPECT_EQ(hello.gateway_id(), "gateway-1");
  EXPECT_EQ(hello.model(), "fake-model");
  EXPECT_EQ(hello.protocol_version(), 1u);
  EXPECT_EQ(a_.AwaitHello(0).hello().gateway_id(), "gateway-1");
  EXPECT_EQ(relay_->cluster().context_tokens, 8192u);

  tandem::GenerateSpec spec = Spec("r");
  spec.sampling.temperature = 0.5f;
  spec.sampling.top_k = 40;
  spec.sampling.logit_bias = {{9, -2.0f}};
  spec.stop.stop_token_ids = {4};
  const auto client = std::make_shared<FakeClient>();
  ASSERT_EQ(relay_->Start(spec, client), absl::OkStatus());
  const v1::GenerateRequest asked = router_.AwaitGenerate(0);
  EXPECT_EQ(asked.request_id(), "r");
  EXPECT_THAT(asked.prompt_ids(), ElementsAre(1, 2, 3));
  EXPECT_EQ(asked.sampling().temperature(), 0.5f);
  EXPECT_EQ(asked.sampling().top_k(), 40u);
  EXPECT_EQ(asked.sampling().logit_bias().at(9), -2.0f);
  EXPECT_EQ(asked.stop().max_tokens(), 100u);
  EXPECT_THAT(asked.stop().stop_token_ids(), ElementsAre(4));
  ASSERT_EQ(asked.choices_size(), 1);
  EXPECT_EQ(asked.choices(0).seed(), 7u);
  EXPECT_FALSE(asked.resume());

  Place(0, "r", "A");
  EXPECT_EQ(client->AwaitPlacement().attention_worker, "A");
  v1::TokenStep step = Step(1, Key("r"), 0, {10});
  step.mutable_sequences(0)->add_logprobs()->set_logprob(-0.25f);
  step.mutable_sequences(0)->add_decode_steps(77);
  a_.Send(0, step);
  v1::TokenStep last = Step(2, Key("r"), 1, {11}, v1::END_REASON_EOS);
  v1::StageTime& time = *last.mutable_sequences(0)->mutable_end()->add_times();
  time.set_stage(v1::STAGE_FFN);
  time.set_worker_id("F");
  time.set_seconds(0.5);
  a_.Send(0, last);
  const ChoiceResult result = client->AwaitEnd();
  EXPECT_EQ(result.result.end.reason, EndReason::kEos);
  ASSERT_EQ(result.result.times.size(), 1u);
  EXPECT_EQ(result.result.times[0].stage, "ffn");
  EXPECT_EQ(result.result.times[0].seconds, 0.5);
  EXPECT_THAT(client->ids(), ElementsAre(10, 11));
  EXPECT_EQ(client->AwaitTokens(2)[0].logprob.logprob, -0.25f);
  EXPECT_EQ(client->AwaitTokens(2)[0].decode_step, 77u);
  EXPECT_EQ(client->AwaitTokens(2)[1].decode_step, 0u) << "a worker that does not say";
  EXPECT_EQ(relay_->in_flight(), 0u);
}

TEST_F(GatewayLinksTest, TokensThatOutrunThePlacementCount) {
  Begin();
  const auto client = Ask("r");
  router_.AwaitGenerate(0);
  a_.Send(0, Step(1, Key("r"), 0, {10}));
  client->AwaitTokens(1);
  Place(0, "r", "A");
  EXPECT_EQ(client->AwaitPlacement().topology, "pd-afd");
}

// --- acknowledgements: what the worker's replay buffer lives on

TEST_F(GatewayLinksTest, StepsAreAcknowledgedEveryEightOnReceiptWhateverTheClientDoes) {
  Begin();
  const auto client = Ask("r");
  for (uint32_t i = 0; i < 16; ++i) a_.Send(0, Step(i + 1, Key("r"), i, {i}));
  EXPECT_EQ(a_.AwaitAck(0, 1).step(), 8u);
  EXPECT_EQ(a_.AwaitAck(0, 2).step(), 16u);
  EXPECT_EQ(client->AwaitTokens(16).size(), 16u);
}

// A worker that drains waits until all that it said is acknowledged.
TEST_F(GatewayLinksTest, MessageThatEndsASequenceIsAcknowledgedAtOnce) {
  Begin();
  const auto client = Ask("r");
  a_.Send(0, Step(1, Key("r"), 0, {10}));
  a_.Send(0, Step(2, Key("r"), 1, {11}, v1::END_REASON_LENGTH));
  EXPECT_EQ(a_.AwaitAck(0).step(), 2u);
}

// --- worker streams

TEST_F(GatewayLinksTest, LostWorkerStreamIsDialledAgainAndGoesOnByPosition) {
  Begin();
  const auto client = Ask("r");
  Place(0, "r", "A");
  a_.Send(0, Step(1, Key("r"), 0, {10}));
  a_.Send(0, Step(2, Key("r"), 1, {11}));
  client->AwaitTokens(2);
  a_.End(0, absl::UnavailableError("a cable was pulled"));
  const v1::TokenHello hello = a_.AwaitHello(1).hello();
  ASSERT_EQ(hello.resume_size(), 1);
  EXPECT_EQ(hello.resume(0).sequence().request_id(), "r");
  EXPECT_EQ(hello.resume(0).received(), 2u);
  a_.Send(1, Step(2, Key("r"), 1, {11}));  // what was not acknowledged comes again
  a_.Send(1, Step(3, Key("r"), 2, {12}, v1::END_REASON_LENGTH));
  client->AwaitEnd();
  EXPECT_THAT(client->ids(), ElementsAre(10, 11, 12));
}

TEST_F(GatewayLinksTest, WorkerThatStaysAwayPastTheLeaseIsReplaced) {
  Begin(/*lease_seconds=*/0.2);
  const auto client = Ask("r");
  router_.AwaitGenerate(0);
  Place(0, "r", "A");
  a_.Send(0, Step(1, Key("r"), 0, {10}));
  client->AwaitTokens(1);
  a_server_.Kill();
  const v1::GenerateRequest again = router_.AwaitGenerate(0, 2);
  EXPECT_TRUE(again.resume());
  EXPECT_EQ(again.choices(0).attempt(), 1u);
  EXPECT_EQ(again.choices(0).seed(), 7u);
  EXPECT_THAT(again.choices(0).emitted_ids(), ElementsAre(10));
  Place(0, "r", "B", 1);
  b_.Send(0, Step(1, Key("r", 1), 1, {11}, v1::END_REASON_LENGTH));
  client->AwaitEnd();
  EXPECT_THAT(client->ids(), ElementsAre(10, 11));
}

TEST_F(GatewayLinksTest, StreamThatEndsBecauseTheGatewayFellBehindIsNotResumed) {
  Begin(/*lease_seconds=*/0.2);
  const auto client = Ask("r");
  router_.AwaitGenerate(0);
  Place(0, "r", "A");
  a_.Send(0, Step(1, Key("r"), 0, {10}));
  client->AwaitTokens(1);
  a_.Refuse(absl::UnavailableError("it does not come back"));
  a_.End(0, GatewayOverloadedError());
  EXPECT_TRUE(IsGatewayOverloaded(client->AwaitEnd().result.end.status));
  // Redials that fail outlive the lease many times: had it resumed, it would have said so by now.
  a_.AwaitRefused(4);
  Ask("next");
  EXPECT_EQ(router_.AwaitGenerate(0, 2).request_id(), "next");
}

TEST_F(GatewayLinksTest, SequenceThatARestartedWorkerDoesNotHoldStartsAgain) {
  Begin();
  const auto client = Ask("r");
  router_.AwaitGenerate(0);
  Place(0, "r", "A");
  a_.Send(0, Step(7, Key("r"), 0, {10}));
  client->AwaitTokens(1);
  a_.End(0, absl::UnavailableError("killed"));
  a_.AwaitHello(1);
  a_.Send(1, Step(1, Key("r"), 1, {}, v1::END_REASON_SUPERSEDED));
  EXPECT_THAT(router_.AwaitGenerate(0, 2).choices(0).emitted_ids(), ElementsAre(10));
  EXPECT_EQ(a_.AwaitAck(1).step(), 1u) << "a new process counts from 1";
  EXPECT_FALSE(client->ended());
}

TEST_F(GatewayLinksTest, WorkerThatRefusesTheStreamIsDialledUntilItTakesIt) {
  a_.Refuse(absl::ResourceExhaustedError("64 gateways are in hand"));
  links_.Start(relay_, {router_server_.address()});
  router_.AwaitHello(0);
  Welcome(0);
  a_.AwaitRefused(3);
  a_.Refuse(std::nullopt);
  const auto client = Ask("r");
  Place(0, "r", "A");
  a_.AwaitHello(0);
  a_.Send(0, Step(1, Key("r"), 0, {10}));
  client->AwaitTokens(1);
}

TEST_F(GatewayLinksTest, WorkerThatMovedIsDialledAtItsNewAddressAndTheOldStreamEnds) {
  Begin();
  const auto client = Ask("r");
  Place(0, "r", "A");
  a_.Send(0, Step(1, Key("r"), 0, {10}));
  client->AwaitTokens(1);
  TokensDoor moved;
  test::TestServer moved_server({&moved});
  router_.Send(0, State({{"A", moved_server.address()}, {"B", b_server_.address()}}));
  a_.AwaitClosed(0);
  EXPECT_EQ(moved.AwaitHello(0).hello().resume(0).received(), 1u);
  moved.Send(0, Step(2, Key("r"), 1, {11}));
  EXPECT_EQ(client->AwaitTokens(2).size(), 2u);
  links_.Stop();
  moved.AwaitClosed(0);
}

TEST_F(GatewayLinksTest, WorkerThatNoRouterNamesAndNoSequenceNeedsIsLetGo) {
  Begin();
  const auto client = Ask("r");
  Place(0, "r", "A");
  client->AwaitPlacement();
  router_.Send(0, State({}));
  b_.AwaitClosed(0);
  a_.Send(0, Step(1, Key("r"), 0, {10}));
  client->AwaitTokens(1);  // that one is needed
}

// --- the router's stream

TEST_F(GatewayLinksTest, LostRouterIsDialledAgainAndAskedForWhatHasNoWorkerYet) {
  Begin();
  const auto placed = Ask("placed"), waiting = Ask("waiting");
  router_.AwaitGenerate(0, 2);
  Place(0, "placed", "A");
  placed->AwaitPlacement();
  router_.End(0, absl::UnavailableError("restarted"));
  EXPECT_EQ(router_.AwaitHello(1).hello().gateway_id(), "gateway-1");
  a_.Send(0, Step(1, Key("placed"), 0, {10}));
  placed->AwaitTokens(1);  // no decoding sequence needs the router
  Welcome(1);
  const v1::GenerateRequest again = router_.AwaitGenerate(1);
  EXPECT_EQ(again.request_id(), "waiting");
  EXPECT_EQ(again.choices(0).attempt(), 1u);
  EXPECT_FALSE(waiting->ended());
}

TEST_F(GatewayLinksTest, RouterThatRefusesTheStreamIsNoRouterUntilItTakesIt) {
  router_.Refuse(absl::FailedPreconditionError("this cluster serves another model"));
  links_.Start(relay_, {router_server_.address()});
  router_.AwaitRefused(2);
  const auto client = std::make_shared<FakeClient>();
  EXPECT_EQ(relay_->Start(Spec("r"), client), absl::UnavailableError("no router is connected"));
  EXPECT_FALSE(relay_->cluster().ready);
  router_.Refuse(std::nullopt);
  router_.AwaitHello(0);
  Welcome(0);
  a_.AwaitHello(0);
  EXPECT_EQ(relay_->Start(Spec("r"), client), absl::OkStatus());
}

TEST_F(GatewayLinksTest, RefusalOfARequestReachesTheClientWithWhenToComeBack) {
  Begin();
  const auto client = Ask("r");
  router_.AwaitGenerate(0);
  v1::RouterMessage message;
  *message.mutable_end()->mutable_sequence() = Key("r");
  message.mutable_end()->set_reason(v1::END_REASON_FAILED);
  ToProto(absl::ResourceExhaustedError("4096 requests are queued"),
          message.mutable_end()->mutable_status());
  message.mutable_end()->set_retry_after_seconds(2.5);
  router_.Send(0, message);
  const ChoiceResult result = client->AwaitEnd();
  EXPECT_EQ(result.result.end.status, absl::ResourceExhaustedError("4096 requests are queued"));
  EXPECT_EQ(result.retry_after_seconds, 2.5);
}

// --- the client leaves

TEST_F(GatewayLinksTest, ClientThatLeavesWhileQueuedIsAbortedAtTheRouter) {
  Begin();
  const auto client = Ask("r");
  router_.AwaitGenerate(0);
  relay_->Cancel(RequestId("r"));
  const v1::AbortRequest abort = router_.AwaitAbort(0);
  EXPECT_EQ(abort.request_id(), "r");
  EXPECT_THAT(abort.choices(), ElementsAre(0));
}

TEST_F(GatewayLinksTest, ClientThatLeavesInMidStreamIsStoppedAtTheWorkerAndTheRouter) {
  Begin();
  const auto client = Ask("r");
  Place(0, "r", "A");
  a_.Send(0, Step(1, Key("r"), 0, {10, 11}));
  client->AwaitTokens(2);
  relay_->Cancel(RequestId("r"));
  const v1::StopSequence stop = a_.AwaitStop(0);
  EXPECT_EQ(stop.sequence().request_id(), "r");
  EXPECT_EQ(stop.position(), 2u);
  EXPECT_EQ(stop.reason(), v1::END_REASON_CANCELLED);
  EXPECT_EQ(router_.AwaitAbort(0).request_id(), "r");
  a_.Send(0, Step(2, Key("r"), 2, {12}));
  a_.Send(0, Step(3, Key("r"), 2, {}, v1::END_REASON_CANCELLED));
  EXPECT_EQ(a_.AwaitAck(0).step(), 3u);
  EXPECT_THAT(client->ids(), ElementsAre(10, 11)) << "nothing follows";
}

TEST_F(GatewayLinksTest, StopStringStopsTheSequenceWhereTheTextEnds) {
  Begin();
  const auto client = Ask("r");
  Place(0, "r", "A");
  a_.Send(0, Step(1, Key("r"), 0, {10, 11, 12}));
  client->AwaitTokens(3);
  relay_->Stop(RequestId("r"), 0, 2, EndReason::kStopped);
  const v1::StopSequence stop = a_.AwaitStop(0);
  EXPECT_EQ(stop.position(), 2u);
  EXPECT_EQ(stop.reason(), v1::END_REASON_STOPPED);
}

TEST_F(GatewayLinksTest, StoppedLinksCloseEveryStreamAndDialNoMore) {
  Begin();
  links_.Stop();
  router_.AwaitClosed(0);
  a_.AwaitClosed(0);
  b_.AwaitClosed(0);
  EXPECT_EQ(router_.streams(), 1u);
}

}  // namespace
}  // namespace tandem::gateway
