// The relay between fake streams: what a client is told whatever is lost in between.

#include "services/gateway/relay/relay.h"

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <set>
#include <thread>

#include "tests/unit/scheduler/base/transition_table_doc.h"
#include "tests/unit/services/gateway/relay_fixture.h"

namespace tandem::gateway {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TEST(RelayTransitions, ArchitectureHasTheTableOfTheCode) {
  test::ExpectDocumented("RelayChoice", kRelayTransitions);
}

TEST_F(RelayTest, TokensReachTheClientInOrderAndTheEndIsItsLastWord) {
  const auto client = Send();
  Place("A");
  Token("A", 0, {10});
  Token("A", 1, {11}, 0, EndReason::kEos);
  EXPECT_THAT(client->tokens[0], ElementsAre(10, 11));
  ASSERT_EQ(client->ends[0].size(), 1u);
  EXPECT_EQ(client->ends[0][0].reason, EndReason::kEos);
  EXPECT_EQ(relay_->in_flight(), 0u);
}

TEST_F(RelayTest, ReplayedTokensAreNotRepeated) {
  const auto client = Send();
  Place("A");
  Token("A", 0, {10});
  Token("A", 1, {11});
  relay_->WorkerDown(WorkerId("A"), absl::UnavailableError("connection reset"));
  const std::vector<ResumePoint> points = relay_->ResumePoints(WorkerId("A"));
  relay_->WorkerUp(WorkerId("A"));
  ASSERT_EQ(points.size(), 1u);
  EXPECT_EQ(points[0].received, 2u);
  Token("A", 1, {11, 12});
  EXPECT_THAT(client->tokens[0], ElementsAre(10, 11, 12));
}

TEST_F(RelayTest, PreemptedSequenceGoesOnWithWhatItEmittedAndAHigherAttempt) {
  const auto client = Send();
  Place("A");
  Token("A", 0, {10});
  Token("A", 1, {}, 0, EndReason::kPreempted);
  ASSERT_EQ(router_.sent.size(), 2u);
  EXPECT_TRUE(router_.sent[1].resume);
  EXPECT_EQ(router_.sent[1].choices[0].attempt, 1u);
  EXPECT_THAT(router_.sent[1].choices[0].emitted_ids, ElementsAre(10));
  Place("B", 0, 1);
  Token("B", 1, {11}, 1, EndReason::kLength);
  EXPECT_THAT(client->tokens[0], ElementsAre(10, 11));
  EXPECT_EQ(client->ends[0].size(), 1u);
}

// What a worker's last word may be when its stream is lost, and nothing more.
// As a worker does that refuses each hello: the dial succeeds, and nothing comes of it.
// The stream's own status was lost with the connection: the sequence's end says it.
TEST_F(RelayTest, SequenceThatFailedAtItsWorkerIsNotTriedElsewhere) {
  for (const absl::Status& cause : {absl::InternalError("two holders died on one call"),
                                    absl::UnavailableError("no FFN worker holds layer 3"),
                                    absl::DeadlineExceededError("late")}) {
    SCOPED_TRACE(cause.ToString());
    router_.sent.clear();
    const auto client = Send();
    Place("A");
    Token("A", 0, {10}, 0, EndReason::kFailed, cause);
    ASSERT_EQ(client->ends[0].size(), 1u);
    EXPECT_EQ(client->ends[0][0].status, cause);
    EXPECT_EQ(router_.sent.size(), 1u);
  }
}

TEST_F(RelayTest, SequenceThatEndedByACancelIsTheClientsToHear) {
  const auto client = Send();
  Place("A");
  Token("A", 0, {10}, 0, EndReason::kCancelled);
  ASSERT_EQ(client->ends[0].size(), 1u);
  EXPECT_EQ(client->ends[0][0].reason, EndReason::kCancelled);
  EXPECT_EQ(router_.sent.size(), 1u);
}

// A worker that was started anew within the lease, or gave the gateway up, holds nothing of it.
TEST_F(RelayTest, RouterThatSaysSupersededIsAskedAgainAndNeverEndsTheText) {
  const auto client = Send();
  relay_->Refused({{RequestId("r"), 0, 0}, {EndReason::kSuperseded, absl::OkStatus()}, 0});
  EXPECT_THAT(client->ends[0], IsEmpty());
  ASSERT_EQ(router_.sent.size(), 2u);
  EXPECT_EQ(router_.sent[1].choices[0].attempt, 1u);
}

TEST_F(RelayTest, LostRouterTouchesNoDecodingSequenceAndPlacesTheOthersAgain) {
  const auto client = Send(2);
  Place("A", 0);
  Token("A", 0, {10});
  relay_->RouterDown(0);
  Token("A", 1, {11});
  EXPECT_THAT(client->tokens[0], ElementsAre(10, 11));
  relay_->RouterUp(0, Duration::Seconds(10));
  ASSERT_EQ(router_.sent.size(), 2u);
  ASSERT_EQ(router_.sent[1].choices.size(), 1u);
  EXPECT_EQ(router_.sent[1].choices[0].choice, 1u);
}

// Kubernetes names each pod anew: more names than max_workers come and go in a gateway's life.
// A worker of the same name that is listed again starts a lease of its own.
TEST_F(RelayTest, WithoutARouterARequestFailsAndAWaitingOneEndsAfterTheWait) {
  const auto client = Send();
  relay_->RouterDown(0);
  tandem::GenerateSpec other;
  other.request = RequestId("other");
  other.choices.push_back({});
  EXPECT_EQ(relay_->Start(other, client).code(), absl::StatusCode::kUnavailable);
  time_.Advance(Duration::Seconds(11));
  ASSERT_EQ(client->ends[0].size(), 1u);
  EXPECT_EQ(client->ends[0][0].status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(relay_->in_flight(), 0u);
}

TEST_F(RelayTest, StopAndCancelReachWhoHoldsTheSequence) {
  const auto client = Send();
  relay_->Cancel(RequestId("r"));
  EXPECT_THAT(router_.aborted, ElementsAre(ElementsAre(0)));
  const auto again = Send();
  Place("A");
  Token("A", 0, {10, 11});
  relay_->Stop(RequestId("r"), 0, 1, EndReason::kStopped);
  EXPECT_THAT(dialer_.workers["A"].stopped,
              ElementsAre(std::pair<std::string, uint32_t>("r#0.0", 1)));
  Token("A", 2, {12});
  EXPECT_THAT(again->tokens[0], ElementsAre(10, 11));
  EXPECT_EQ(relay_->in_flight(), 0u);
}

TEST_F(RelayTest, SlowClientIsCutAndItsSequenceStopped) {
  const auto client = Send();
  Place("A");
  client->full = true;
  Token("A", 0, {10});
  EXPECT_EQ(dialer_.workers["A"].stopped.size(), 1u);
  EXPECT_EQ(relay_->in_flight(), 0u);
}

TEST_F(RelayTest, GapInTheTokensIsAnErrorNotASilentLoss) {
  const auto client = Send();
  Place("A");
  Token("A", 0, {10});
  Token("A", 2, {12});
  ASSERT_EQ(client->ends[0].size(), 1u);
  EXPECT_THAT(std::string(client->ends[0][0].status.message()), HasSubstr("position 2 after 1"));
}

// What a gateway's exit relies on: the links go next.
TEST_F(RelayTest, AfterShutNoLinkIsCalledWhateverStillComes) {
  const auto client = Send();
  Place("A");
  relay_->Shut();
  router_ = {};
  dialer_.workers.clear();
  Token("A", 0, {10}, 0, EndReason::kEos);
  relay_->WorkerDown(WorkerId("A"), absl::UnavailableError("gone"));
  relay_->RouterUp(0, Duration::Seconds(10));
  relay_->ClusterChanged(0, {true, "", 8192, {{WorkerId("C"), "c:1"}}});
  Place("C");
  relay_->WorkerUp(WorkerId("C"));
  relay_->Cancel(RequestId("r"));
  tandem::GenerateSpec late;
  late.request = RequestId("late");
  late.prompt_ids = {1};
  late.choices.push_back({0, 0, 7, {}});
  EXPECT_EQ(relay_->Start(std::move(late), client).code(), absl::StatusCode::kUnavailable);
  relay_->RouterDown(0);
  time_.Advance(Duration::Seconds(60));
  EXPECT_TRUE(router_.sent.empty());
  EXPECT_TRUE(router_.aborted.empty());
  EXPECT_TRUE(dialer_.workers.empty()) << "a link was asked for";
  EXPECT_EQ(relay_->in_flight(), 0u);
}

TEST_F(RelayTest, RefusedRequestTellsTheReason) {
  const auto client = Send();
  relay_->Refused({{RequestId("r"), 0, 0},
                   {EndReason::kFailed, absl::ResourceExhaustedError("queue is full")},
                   2.0});
  ASSERT_EQ(client->ends[0].size(), 1u);
  EXPECT_EQ(client->ends[0][0].status.code(), absl::StatusCode::kResourceExhausted);
}

// Clients come and go on one thread while tokens arrive on another, as gateway and gRPC threads do.
// Under TSan an unordered access is a report.
TEST_F(RelayTest, ClientsAndStreamsMayMeetOnDifferentThreads) {
  constexpr int kRequests = 300,
                kWindow = 4;  // within the window neither thread waits for the other
  std::atomic<int> started = 0, ended = 0;
  std::thread streams([&] {
    for (int i = 0; i < kRequests; i++) {
      for (int seen = started.load(); seen <= i; seen = started.load()) started.wait(seen);
      const RequestId id(absl::StrCat("r", i));
      relay_->Placed({{id, 0, 0}, "pd-afd", "P", {WorkerId("A"), "a:1"}});
      for (uint32_t position = 0; position < 4; position++) {
        SequenceTokens part;
        part.sequence = {id, 0, 0};
        part.position = position;
        part.tokens.push_back({position, {}});
        if (position == 3) part.result = SequenceResult{{EndReason::kLength, {}}, {}, 0};
        relay_->Tokens(WorkerId("A"), {++step_, {part}});
      }
      ended = i + 1;
      ended.notify_one();
    }
  });
  std::vector<std::shared_ptr<Client>> clients;
  for (int i = 0; i < kRequests; i++) {
    for (int seen = ended.load(); seen + kWindow <= i; seen = ended.load()) ended.wait(seen);
    tandem::GenerateSpec spec;
    spec.request = RequestId(absl::StrCat("r", i));
    spec.prompt_ids = {1};
    spec.stop.max_tokens = 4;
    spec.choices.push_back({0, 0, 7, {}});
    clients.push_back(std::make_shared<Client>());
    EXPECT_TRUE(relay_->Start(std::move(spec), clients.back()).ok());
    started = i + 1;
    started.notify_one();
    if (i % 3 == 0) relay_->Cancel(RequestId(absl::StrCat("r", i)));
  }
  streams.join();
  EXPECT_EQ(relay_->in_flight(), 0u);
  for (int i = 0; i < kRequests; i++) {
    if (i % 3 == 0) continue;
    EXPECT_THAT(clients[i]->tokens[0], ElementsAre(0, 1, 2, 3)) << i;
    EXPECT_EQ(clients[i]->ends[0].size(), 1u) << i;
  }
}

TEST_F(RelayTest, MoreRequestsThanTheBoundAreRefused) {
  relay_ = Relay::Create({.max_requests = 0}, time_, dialer_);
  relay_->AddRouter(router_);
  relay_->RouterUp(0, Duration::Seconds(10));
  tandem::GenerateSpec spec;
  spec.request = RequestId("r");
  EXPECT_EQ(relay_->Start(spec, std::make_shared<Client>()).code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace tandem::gateway
