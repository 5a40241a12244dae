// The relay between fake streams: what a client is told whatever is lost in between.

#include "services/gateway/relay/relay.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <absl/strings/str_cat.h>

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <thread>
#include <vector>

#include "tests/fakes/manual_time.h"
#include "tests/unit/scheduler/base/transition_table_doc.h"

namespace tandem::gateway {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct FakeRouter final : RouterLink {
  void Generate(const tandem::GenerateSpec& spec) override { sent.push_back(spec); }
  void Abort(const RequestId&, const std::vector<uint32_t>& choices) override {
    aborted.push_back(choices);
  }
  std::vector<tandem::GenerateSpec> sent;
  std::vector<std::vector<uint32_t>> aborted;
};

struct FakeWorker final : WorkerLink {
  void Stop(const SequenceKey& sequence, uint32_t position, EndReason) override {
    stopped.emplace_back(ToString(sequence), position);
  }
  void Acknowledge(uint64_t step) override { acknowledged = step; }
  void Dial(const std::string& to) override { address = to; }
  std::vector<std::pair<std::string, uint32_t>> stopped;
  uint64_t acknowledged = 0;
  std::string address;
};

struct FakeDialer final : WorkerDialer {
  WorkerLink* Link(const WorkerId& worker) override { return &workers[worker.value()]; }
  void Forget(const WorkerId& worker) override { workers.erase(worker.value()); }
  std::map<std::string, FakeWorker> workers;
};

struct Client final : ChoiceSink {
  bool Deliver(ChoiceEvent event) override {
    if (full) return false;
    for (const NewToken& token : event.tokens) tokens[event.choice].push_back(token.id);
    if (event.result.has_value()) ends[event.choice].push_back(event.result->result.end);
    return true;
  }
  bool full = false;
  std::map<uint32_t, std::vector<TokenId>> tokens;
  std::map<uint32_t, std::vector<SequenceEnd>> ends;
};

class RelayTest : public ::testing::Test {
 protected:
  RelayTest() {
    relay_->AddRouter(router_);
    relay_->RouterUp(0, Duration::Seconds(10));
    relay_->ClusterChanged(0, {true, "", 8192, {{WorkerId("A"), "a:1"}, {WorkerId("B"), "b:1"}}});
    relay_->WorkerUp(WorkerId("A"));
    relay_->WorkerUp(WorkerId("B"));
  }
  std::shared_ptr<Client> Send(uint32_t n = 1) {
    tandem::GenerateSpec spec;
    spec.request = RequestId("r");
    spec.prompt_ids = {1, 2, 3};
    spec.stop.max_tokens = 100;
    for (uint32_t i = 0; i < n; ++i) spec.choices.push_back({i, 0, 7, {}});
    auto client = std::make_shared<Client>();
    EXPECT_TRUE(relay_->Start(std::move(spec), client).ok());
    return client;
  }
  void Place(const char* worker, uint32_t choice = 0, uint32_t attempt = 0) {
    relay_->Placed({{RequestId("r"), choice, attempt},
                    "pd-afd",
                    "P",
                    {WorkerId(worker), worker == std::string("A") ? "a:1" : "b:1"}});
  }
  void Token(const char* worker, uint32_t position, std::vector<TokenId> ids, uint32_t attempt = 0,
             std::optional<EndReason> end = std::nullopt, absl::Status status = {}) {
    SequenceTokens part;
    part.sequence = {RequestId("r"), 0, attempt};
    part.position = position;
    for (const TokenId id : ids) part.tokens.push_back({id, {}});
    if (end.has_value()) part.result = SequenceResult{{*end, std::move(status)}, {}, 0};
    relay_->Tokens(WorkerId(worker), {++step_, {part}});
  }

  test::ManualTime time_;
  FakeDialer dialer_;
  FakeRouter router_;
  uint64_t step_ = 0;
  std::shared_ptr<Relay> relay_ = Relay::Create({}, time_, dialer_);
};

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

// What a worker's last word may be when its stream is lost, and nothing more.
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

// As a worker does that refuses each hello: the dial succeeds, and nothing comes of it.
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

// The stream's own status was lost with the connection: the sequence's end says it.
TEST_F(RelayTest, EndOfAnOverloadedGatewayIsFinalThoughTokensBeforeItNeverCame) {
  const auto client = Send();
  Place("A");
  Token("A", 0, {10});
  Token("A", 900, {}, 0, EndReason::kFailed, GatewayOverloadedError());
  ASSERT_EQ(client->ends[0].size(), 1u);
  EXPECT_TRUE(IsGatewayOverloaded(client->ends[0][0].status)) << client->ends[0][0].status;
  EXPECT_EQ(router_.sent.size(), 1u);
}

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

// A worker of the same name that is listed again starts a lease of its own.
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
