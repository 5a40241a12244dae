// The relay's attention workers: streams that are lost, come back, fall behind or leave for good,
// and what of them is acknowledged.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/unit/services/gateway/relay_fixture.h"

namespace tandem::gateway {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

TEST_F(RelayTest, WorkerThatStaysAwayPastTheLeaseIsReplacedAndItsLateTokensAreNoise) {
  const auto client = Send();
  Place("A");
  Token("A", 0, {10});
  relay_->WorkerDown(WorkerId("A"), absl::UnavailableError("connection reset"));
  time_.Advance(Duration::Seconds(9));
  EXPECT_EQ(router_.sent.size(), 1u);
  time_.Advance(Duration::Seconds(2));
  ASSERT_EQ(router_.sent.size(), 2u);
  Place("B", 0, 1);
  Token("A", 1, {99}, 0);
  Token("B", 1, {11}, 1);
  EXPECT_THAT(client->tokens[0], ElementsAre(10, 11));
}

TEST_F(RelayTest, StreamThatEndsForAnyOtherReasonThanOverloadIsALossAfterTheLease) {
  const absl::Status causes[] = {
      absl::OkStatus(),
      absl::UnavailableError("connection reset"),
      absl::UnavailableError("worker A stops"),
      absl::ResourceExhaustedError("gateway g: 64 gateways are in hand"),
      absl::InvalidArgumentError("a second hello"),
      absl::CancelledError("the peer left"),
      absl::InternalError("gateway_overloaded"),
  };
  for (const absl::Status& cause : causes) {
    SCOPED_TRACE(cause.ToString());
    router_.sent.clear();
    const auto client = Send();
    Place("A");
    Token("A", 0, {10});
    relay_->WorkerDown(WorkerId("A"), cause);
    time_.Advance(Duration::Seconds(9));
    EXPECT_THAT(client->ends[0], IsEmpty());
    EXPECT_EQ(router_.sent.size(), 1u);
    time_.Advance(Duration::Seconds(2));
    ASSERT_EQ(router_.sent.size(), 2u);
    EXPECT_THAT(router_.sent[1].choices[0].emitted_ids, ElementsAre(10));
    relay_->Cancel(RequestId("r"));
    relay_->WorkerUp(WorkerId("A"));
  }
}

TEST_F(RelayTest, StreamsThatBreakAsTheyOpenDoNotKeepALostSequenceWaiting) {
  Send();
  Place("A");
  Token("A", 0, {10});
  for (int i = 0; i < 10; ++i) {
    relay_->WorkerDown(WorkerId("A"), absl::ResourceExhaustedError("too many gateways"));
    time_.Advance(Duration::Milliseconds(900));
    relay_->WorkerUp(WorkerId("A"));
    time_.Advance(Duration::Milliseconds(10));
  }
  EXPECT_EQ(router_.sent.size(), 1u);
  relay_->WorkerDown(WorkerId("A"), absl::ResourceExhaustedError("too many gateways"));
  time_.Advance(Duration::Seconds(1));
  EXPECT_EQ(router_.sent.size(), 2u) << "the lease ran from the first loss";
}

TEST_F(RelayTest, TheLeaseIsTheOneThatTheRouterSays) {
  relay_->RouterUp(0, Duration::Seconds(3));
  Send();
  Place("A");
  relay_->WorkerDown(WorkerId("A"), absl::UnavailableError("connection reset"));
  time_.Advance(Duration::Seconds(2));
  EXPECT_EQ(router_.sent.size(), 1u);
  time_.Advance(Duration::Seconds(2));
  EXPECT_EQ(router_.sent.size(), 2u);
}

TEST_F(RelayTest, StreamThatStoodGetsALeaseOfItsOwn) {
  Send();
  Place("A");
  for (const Duration stood : {Duration::Seconds(10), Duration()}) {
    relay_->WorkerDown(WorkerId("A"), absl::UnavailableError("connection reset"));
    time_.Advance(Duration::Seconds(9));
    relay_->WorkerUp(WorkerId("A"));
    time_.Advance(stood);
  }
  Token("A", 0, {10});
  relay_->WorkerDown(WorkerId("A"), absl::UnavailableError("connection reset"));
  time_.Advance(Duration::Seconds(9));
  EXPECT_EQ(router_.sent.size(), 1u);
  time_.Advance(Duration::Seconds(2));
  EXPECT_EQ(router_.sent.size(), 2u);
}

TEST_F(RelayTest, StreamOfAnOverloadedGatewayEndsItsSequencesThereForGood) {
  const auto client = Send(2);
  Place("A", 0);
  Place("B", 1);
  Token("A", 0, {10});
  relay_->WorkerDown(WorkerId("A"), GatewayOverloadedError());
  ASSERT_EQ(client->ends[0].size(), 1u) << "at once: no lease can bring it back";
  EXPECT_EQ(client->ends[0][0].reason, EndReason::kFailed);
  EXPECT_TRUE(IsGatewayOverloaded(client->ends[0][0].status));
  time_.Advance(Duration::Seconds(60));
  EXPECT_EQ(router_.sent.size(), 1u) << "never resumed: it would fall behind again";
  EXPECT_THAT(client->ends[1], IsEmpty()) << "that one is elsewhere";
  // The worker's own word on it, should the stream come back: too late, and no surprise.
  relay_->WorkerUp(WorkerId("A"));
  Token("A", 900, {}, 0, EndReason::kFailed, GatewayOverloadedError());
  EXPECT_EQ(client->ends[0].size(), 1u);
  EXPECT_EQ(router_.sent.size(), 1u);
}

TEST_F(RelayTest, SequenceThatCameAfterTheOverloadIsStoppedAtItsWorkerWhenItSpeaks) {
  Send();
  Place("A");
  relay_->WorkerDown(WorkerId("A"), GatewayOverloadedError());
  relay_->WorkerUp(WorkerId("A"));
  Token("A", 0, {10});
  EXPECT_EQ(dialer_.workers["A"].stopped.size(), 1u);
}

TEST_F(RelayTest, EndOfAnOverloadedGatewayIsFinalThoughTokensBeforeItNeverCame) {
  const auto client = Send();
  Place("A");
  Token("A", 0, {10});
  Token("A", 900, {}, 0, EndReason::kFailed, GatewayOverloadedError());
  ASSERT_EQ(client->ends[0].size(), 1u);
  EXPECT_TRUE(IsGatewayOverloaded(client->ends[0][0].status)) << client->ends[0][0].status;
  EXPECT_EQ(router_.sent.size(), 1u);
}

TEST_F(RelayTest, SequenceThatItsWorkerDoesNotHoldAnyMoreIsALoss) {
  const auto client = Send();
  Place("A");
  Token("A", 0, {10});
  relay_->WorkerDown(WorkerId("A"), absl::UnavailableError("connection reset"));
  relay_->ResumePoints(WorkerId("A"));
  relay_->WorkerUp(WorkerId("A"));
  Token("A", 1, {}, 0, EndReason::kSuperseded);
  ASSERT_EQ(router_.sent.size(), 2u);
  EXPECT_TRUE(router_.sent[1].resume);
  EXPECT_THAT(router_.sent[1].choices[0].emitted_ids, ElementsAre(10));
  EXPECT_THAT(client->ends[0], IsEmpty());
}

TEST_F(RelayTest, WorkersThatLeftGiveTheirPlaceInTheTableBack) {
  const auto client = Send();
  Place("A");
  Token("A", 0, {10});
  for (int pod = 0; pod < 3000; ++pod) {
    const WorkerId name("pod-" + std::to_string(pod));
    relay_->ClusterChanged(0, {true, "", 8192, {{name, "c:1"}}});
    relay_->WorkerUp(name);
  }
  // A holds a sequence and keeps its link; B and 2,999 pods are forgotten.
  EXPECT_EQ(dialer_.workers.size(), 2u);
  Token("A", 1, {11}, 0, EndReason::kPreempted);
  relay_->Placed({{RequestId("r"), 0, 1}, "pd-afd", "P", {WorkerId("pod-2999"), "c:1"}});
  Token("pod-2999", 2, {12}, 1, EndReason::kEos);
  EXPECT_THAT(client->tokens[0], ElementsAre(10, 11, 12));
  EXPECT_EQ(client->ends[0].size(), 1u);
}

TEST_F(RelayTest, AlarmOfAForgottenWorkerDoesNotEndTheLeaseOfItsSuccessor) {
  relay_->WorkerDown(WorkerId("A"), absl::OkStatus());  // alarm after 10 s
  relay_->ClusterChanged(0, {true, "", 8192, {}});
  time_.Advance(Duration::Seconds(5));
  relay_->ClusterChanged(0, {true, "", 8192, {{WorkerId("A"), "a:1"}}});
  relay_->WorkerUp(WorkerId("A"));
  const auto client = Send();
  Place("A");
  Token("A", 0, {10});
  relay_->WorkerDown(WorkerId("A"), absl::OkStatus());  // alarm after 15 s
  time_.Advance(Duration::Seconds(7));
  EXPECT_EQ(router_.sent.size(), 1u);
  time_.Advance(Duration::Seconds(4));
  EXPECT_EQ(router_.sent.size(), 2u);
}

TEST_F(RelayTest, MessagesAreAcknowledgedEveryFewSteps) {
  Send();
  Place("A");
  for (uint32_t i = 0; i < 7; ++i) Token("A", i, {i});
  EXPECT_EQ(dialer_.workers["A"].acknowledged, 0u);
  Token("A", 7, {7});
  EXPECT_EQ(dialer_.workers["A"].acknowledged, 8u);
  Token("A", 8, {8}, 0, EndReason::kEos);
  EXPECT_EQ(dialer_.workers["A"].acknowledged, 9u) << "nothing may follow an end";
}

TEST_F(RelayTest, AnEndIsAcknowledgedAtOnceSoThatADrainingWorkerCanGo) {
  Send();
  Place("A");
  Token("A", 0, {10});
  EXPECT_EQ(dialer_.workers["A"].acknowledged, 0u);
  Token("A", 1, {11}, 0, EndReason::kEos);
  EXPECT_EQ(dialer_.workers["A"].acknowledged, 2u);
}

}  // namespace
}  // namespace tandem::gateway
