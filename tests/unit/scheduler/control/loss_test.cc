#include "tests/unit/scheduler/control/controller_fixture.h"

namespace tandem::control {
namespace {

class LossTest : public ControllerTest {
 protected:
  // One request, placed on attention worker "a" and in prefill at "p1" ("p2" is the other).
  SendPrefill StartPrefill() {
    Connect();
    Register(MakeWorker("a", kAttentionAndFfn));
    Register(MakeWorker("p1", kPrefillOnly));
    Register(MakeWorker("p2", kPrefillOnly));
    Generate(MakeSpec("r"));
    const SendDecode decode = Only<SendDecode>();
    Answer(decode.worker, decode.command);
    return Only<SendPrefill>();
  }
};

TEST_F(LossTest, LostPrefillWorkerIsReplacedForTheSameReservation) {
  const SendPrefill first = StartPrefill();
  EXPECT_EQ(first.worker, WorkerId("p1"));
  Answer(first.worker, first.command);
  Lose("p1");
  EXPECT_EQ(Only<SendPrefill>().worker, WorkerId("p2"));
  EXPECT_EQ(Only<SendPrefill>().reservation, first.reservation);
  Tell(SequencePrefilled{WorkerId("p2"), Key("r")});
  EXPECT_EQ(controller_->Snapshot().live_sequences, 1u);
}

TEST_F(LossTest, WithTheLastPrefillWorkerTheReservationIsGivenBack) {
  StartPrefill();
  Lose("p2");
  Lose("p1");
  EXPECT_EQ(Only<SendRelease>().worker, WorkerId("a"));
  EXPECT_EQ(Only<SendRelease>().reason, EndReason::kSuperseded);
  EXPECT_EQ(controller_->Snapshot().open_requests, 0u);
  EXPECT_FALSE(controller_->Snapshot().ready);
}

TEST_F(LossTest, PrefillWorkerLostWhileReservingIsReplacedAtAdmission) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  Register(MakeWorker("p1", kPrefillOnly));
  Register(MakeWorker("p2", kPrefillOnly));
  Generate(MakeSpec("r"));
  const SendDecode decode = Only<SendDecode>();
  Lose("p1");
  Answer(decode.worker, decode.command);
  EXPECT_EQ(Only<SendPrefill>().worker, WorkerId("p2"));
}

TEST_F(LossTest, LostWhileReservingTheRequestGoesToAnotherAttentionWorker) {
  Connect();
  Register(MakeWorker("a1", kAllStages));
  Register(MakeWorker("a2", kAllStages));
  Generate(MakeSpec("r"));
  EXPECT_EQ(Only<SendDecode>().worker, WorkerId("a1"));
  Lose("a1");
  EXPECT_EQ(Only<SendDecode>().worker, WorkerId("a2"));
  EXPECT_TRUE(All<TellEnd>().empty());
}

TEST_F(LossTest, LostAttentionWorkersSequencesAreTheGatewaysToResume) {
  StartPrefill();
  Lose("a");
  EXPECT_TRUE(All<TellEnd>().empty());
  EXPECT_TRUE(All<SendDecode>().empty());
  EXPECT_EQ(controller_->Snapshot().live_sequences, 0u);
  EXPECT_EQ(controller_->Snapshot().queued_requests, 0u);
  // The prefill worker's own failure to reach it means nothing any more.
  Tell(SequenceEnded{
      WorkerId("p1"), Key("r"), {EndReason::kFailed, absl::UnavailableError("peer")}});
  EXPECT_TRUE(commands_.empty());
}

TEST_F(LossTest, WorkerThatAdmittedBeforeItsStreamBrokeGivesUpWhatWasPlacedElsewhere) {
  Connect();
  Register(MakeWorker("a1", kAllStages));
  Register(MakeWorker("a2", kAllStages));
  Generate(MakeSpec("r"));
  EXPECT_EQ(Only<SendDecode>().worker, WorkerId("a1"));
  Lose("a1");
  EXPECT_EQ(Only<SendDecode>().worker, WorkerId("a2"));
  WorkerDescription back = MakeWorker("a1", kAllStages);
  back.live = {Key("r")};
  Register(back);
  EXPECT_EQ(Only<SendRelease>().worker, WorkerId("a1"));
  EXPECT_EQ(Only<SendRelease>().reason, EndReason::kSuperseded);
  EXPECT_EQ(controller_->Snapshot().live_sequences, 0u) << "a2 has not answered yet";
}

TEST_F(LossTest, ResumeFreesTheOlderAttemptAndIsPlacedElsewhere) {
  Connect();
  Register(MakeWorker("a1", kAllStages));
  Generate(MakeSpec("r"));
  Answer(WorkerId("a1"), Only<SendDecode>().command);
  Tell(SequencePrefilled{WorkerId("a1"), Key("r")});
  Register(MakeWorker("a2", kAllStages));
  GenerateSpec resume = MakeSpec("r");
  resume.choices[0].attempt = 1;
  resume.choices[0].emitted_ids = {9};
  resume.resume = true;
  Generate(resume);
  const SendRelease release = Only<SendRelease>();
  EXPECT_EQ(release.worker, WorkerId("a1"));
  EXPECT_EQ(release.sequences, (std::vector<SequenceKey>{Key("r", 0, 0)}));
  EXPECT_EQ(release.reason, EndReason::kSuperseded);
  EXPECT_EQ(Only<SendDecode>().choices[0].attempt, 1u);
}

TEST_F(LossTest, OlderAttemptThatComesLateIsSuperseded) {
  Connect();
  GenerateSpec newer = MakeSpec("r");
  newer.choices[0].attempt = 2;
  Generate(newer);
  Generate(MakeSpec("r"));
  EXPECT_EQ(Only<TellEnd>().end.reason, EndReason::kSuperseded);
  EXPECT_EQ(Only<TellEnd>().sequence, Key("r"));
  EXPECT_EQ(controller_->Snapshot().queued_requests, 1u);
}

TEST_F(LossTest, RestartedRouterKnowsTheSequencesThatWorkersList) {
  Connect();
  WorkerDescription a1 = MakeWorker("a1", kAllStages);
  a1.live = {Key("x", 0), Key("x", 1), Key("y")};
  Register(a1);
  Register(MakeWorker("a2", kAllStages));
  EXPECT_EQ(controller_->Snapshot().live_sequences, 3u);
  Generate(MakeSpec("r"));
  EXPECT_EQ(Only<SendDecode>().worker, WorkerId("a2")) << "a1 holds three already";
  // The gateway asks again for one that decodes: it is told where.
  Generate(MakeSpec("y"));
  EXPECT_EQ(Only<TellPlaced>().attention_worker, WorkerId("a1"));
  Tell(SequenceEnded{WorkerId("a1"), Key("x", 1), {EndReason::kEos, {}}});
  EXPECT_EQ(controller_->Snapshot().live_sequences, 2u);
}

TEST_F(LossTest, LostGatewaysRequestsAreDroppedAndReleasedButNotWhatDecodes) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  Register(MakeWorker("p", kPrefillOnly));
  Generate(MakeSpec("decodes"));
  Answer(WorkerId("a"), Only<SendDecode>().command);
  Tell(SequencePrefilled{WorkerId("p"), Key("decodes")});
  Generate(MakeSpec("prefills"));
  Answer(WorkerId("a"), Only<SendDecode>().command);
  const SendPrefill prefill = Only<SendPrefill>();
  Tell(GatewayLost{kGateway});
  const std::vector<SendRelease> releases = All<SendRelease>();
  ASSERT_EQ(releases.size(), 2u);
  EXPECT_EQ(releases[0].worker, WorkerId("a"));
  EXPECT_EQ(releases[0].sequences, (std::vector<SequenceKey>{Key("prefills")}));
  EXPECT_EQ(releases[1].worker, WorkerId("p"));
  EXPECT_EQ(releases[1].reservation, prefill.reservation);
  EXPECT_TRUE(All<TellEnd>().empty());
  EXPECT_EQ(controller_->Snapshot().live_sequences, 1u);
}

TEST_F(LossTest, AbortWhileQueuedEndsItAtOnce) {
  Connect();
  Generate(MakeSpec("r", 20, 10, 2));
  Tell(AbortArrived{kGateway, RequestId("r"), {1}});
  EXPECT_EQ(Only<TellEnd>().sequence, Key("r", 1));
  EXPECT_EQ(Only<TellEnd>().end.reason, EndReason::kCancelled);
  EXPECT_EQ(controller_->Snapshot().queued_requests, 1u);
  Tell(AbortArrived{kGateway, RequestId("r"), {}});
  EXPECT_EQ(Only<TellEnd>().sequence, Key("r", 0));
  EXPECT_EQ(controller_->Snapshot().queued_requests, 0u);
}

TEST_F(LossTest, AbortWhileReservingEndsExactlyOnce) {
  for (const bool admitted : {true, false}) {
    SCOPED_TRACE(admitted);
    controller_ = std::make_unique<Controller>(config_);
    Connect();
    Register(MakeWorker("c", kAllStages));
    Generate(MakeSpec("r"));
    const SendDecode decode = Only<SendDecode>();
    Tell(AbortArrived{kGateway, RequestId("r"), {}});
    EXPECT_EQ(Only<SendRelease>().worker, WorkerId("c"));
    EXPECT_TRUE(All<TellEnd>().empty());
    Answer(decode.worker, decode.command,
           admitted ? absl::OkStatus() : absl::ResourceExhaustedError("full"));
    // Admitted: the worker tells the end. Refused: nobody but the router can.
    EXPECT_EQ(All<TellEnd>().size(), admitted ? 0u : 1u);
    EXPECT_TRUE(All<TellPlaced>().empty());
    EXPECT_TRUE(All<SendDecode>().empty());
    EXPECT_EQ(controller_->Snapshot().live_sequences, 0u);
    EXPECT_EQ(controller_->Snapshot().queued_requests, 0u);
  }
}

TEST_F(LossTest, AbortInPrefillReleasesAtBothWorkers) {
  StartPrefill();
  Tell(AbortArrived{kGateway, RequestId("r"), {}});
  const std::vector<SendRelease> releases = All<SendRelease>();
  ASSERT_EQ(releases.size(), 2u);
  EXPECT_EQ(releases[0].worker, WorkerId("a"));
  EXPECT_EQ(releases[0].reason, EndReason::kCancelled);
  EXPECT_EQ(releases[1].worker, WorkerId("p1"));
}

TEST_F(LossTest, SequenceThatEndsInPrefillStopsThePrefillWorker) {
  const SendPrefill prefill = StartPrefill();
  Tell(SequenceEnded{WorkerId("a"), Key("r"), {EndReason::kCancelled, {}}});
  EXPECT_EQ(Only<SendRelease>().worker, WorkerId("p1"));
  EXPECT_EQ(Only<SendRelease>().reservation, prefill.reservation);
}

TEST_F(LossTest, SilenceForALeaseIsALoss) {
  Connect();
  Register(MakeWorker("c", kAllStages));
  EXPECT_EQ(controller_->NextDeadline(), now_ + config_.worker_lease);
  Advance(Duration::Seconds(3));
  Heartbeat("c", {.kv_blocks_free = 64});
  Advance(Duration::Seconds(4));
  Tell(TimePassed{});
  EXPECT_TRUE(All<CloseWorker>().empty());
  Advance(Duration::Seconds(1));
  Tell(TimePassed{});
  EXPECT_EQ(Only<CloseWorker>().worker, WorkerId("c"));
  EXPECT_EQ(Only<CloseWorker>().reason, "no heartbeat for 5 s");
  EXPECT_FALSE(Only<TellClusterState>().ready);
  EXPECT_EQ(controller_->NextDeadline(), Instant::Never());
}

TEST_F(LossTest, FrozenRouterRenewsBeforeItJudges) {
  Connect();
  Register(MakeWorker("c", kAllStages));
  Advance(config_.worker_lease + config_.worker_lease + Duration::Milliseconds(1));
  Tell(TimePassed{});
  EXPECT_TRUE(All<CloseWorker>().empty());
  EXPECT_EQ(controller_->NextDeadline(), now_ + config_.worker_lease);
}

TEST_F(LossTest, CommandWithoutAnAnswerClosesTheWorker) {
  Connect();
  Register(MakeWorker("c", kAllStages));
  Generate(MakeSpec("r"));
  for (int i = 0; i < 3; i++) {
    Advance(Duration::Seconds(3));
    Heartbeat("c", {.kv_blocks_free = 64});
  }
  Advance(Duration::Seconds(1));
  EXPECT_EQ(controller_->NextDeadline(), now_);
  Tell(TimePassed{});
  EXPECT_EQ(Only<CloseWorker>().worker, WorkerId("c"));
  EXPECT_EQ(controller_->Snapshot().queued_requests, 1u) << "the request waits for another worker";
}

TEST_F(LossTest, QueuedWithoutATopologyEndsAfterTheTimeOutAndSaysWhatIsMissing) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  Generate(MakeSpec("r"));
  for (int i = 0; i < 15; i++) {
    EXPECT_TRUE(All<TellEnd>().empty());
    Advance(Duration::Seconds(4));
    Heartbeat("a", {.kv_blocks_free = 64});
  }
  EXPECT_EQ(controller_->NextDeadline(), now_);
  Tell(TimePassed{});
  const TellEnd end = Only<TellEnd>();
  EXPECT_EQ(end.end.status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(end.end.status.message(),
            "queued for 60 s while no topology was ready: prefill: no worker is ready to prefill "
            "for attention worker a");
  EXPECT_GE(end.retry_after, Duration::Seconds(1));
}

}  // namespace
}  // namespace tandem::control
