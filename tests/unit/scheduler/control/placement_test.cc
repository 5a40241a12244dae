#include "tests/unit/scheduler/control/controller_fixture.h"

namespace tandem::control {
namespace {

using PlacementTest = ControllerTest;

TEST_F(PlacementTest, ColocatedRequestIsDecodedWithLocalPrefillAndToldPlaced) {
  Connect();
  Register(MakeWorker("c", kAllStages));
  Generate(MakeSpec("r"));
  const SendDecode decode = Only<SendDecode>();
  EXPECT_EQ(decode.worker, WorkerId("c"));
  EXPECT_TRUE(decode.local_prefill);
  EXPECT_EQ(decode.reservation_lease, Duration::Infinite());
  EXPECT_TRUE(All<TellPlaced>().empty()) << "before the worker has admitted it";
  Answer(decode.worker, decode.command);
  const TellPlaced placed = Only<TellPlaced>();
  EXPECT_EQ(placed.sequence, Key("r"));
  EXPECT_EQ(placed.topology, "colocated");
  EXPECT_EQ(placed.prefill_worker, WorkerId("c"));
  EXPECT_EQ(placed.attention_address, "c:1");
  EXPECT_TRUE(All<SendPrefill>().empty());
  Tell(SequencePrefilled{WorkerId("c"), Key("r")});
  EXPECT_EQ(controller_->Snapshot().live_sequences, 1u);
  Tell(SequenceEnded{WorkerId("c"), Key("r"), {EndReason::kEos, {}}});
  EXPECT_TRUE(All<TellEnd>().empty()) << "the attention worker tells the gateway";
  EXPECT_EQ(controller_->Snapshot().live_sequences, 0u);
}

TEST_F(PlacementTest, TopologyFollowsFromTheRegisteredStages) {
  struct Case {
    std::string name;
    std::vector<WorkerDescription> workers;
  };
  const Case cases[] = {
      {"colocated", {MakeWorker("a", kAllStages)}},
      {"afd", {MakeWorker("a", kPrefillAndAttention), MakeWorker("f", kFfnOnly)}},
      {"pd", {MakeWorker("a", kAttentionAndFfn), MakeWorker("p", kPrefillOnly)}},
      {"pd-afd",
       {MakeWorker("a", kAttentionOnly), MakeWorker("p", kPrefillOnly), MakeWorker("f", kFfnOnly)}},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name);
    controller_ = std::make_unique<Controller>(config_);
    Connect();
    for (const WorkerDescription& worker : c.workers) Register(worker);
    Generate(MakeSpec("r"));
    const SendDecode decode = Only<SendDecode>();
    Answer(decode.worker, decode.command);
    EXPECT_EQ(Only<TellPlaced>().topology, c.name);
    EXPECT_EQ(All<SendPrefill>().size(), c.name.substr(0, 2) == "pd" ? 1u : 0u);
  }
}

TEST_F(PlacementTest, PrefillNamesTheReservationAndTheAttentionWorker) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  Register(MakeWorker("p", kPrefillOnly));
  GenerateSpec spec = MakeSpec("r", 3);
  spec.choices[0].attempt = 2;
  spec.choices[0].emitted_ids = {70, 71};
  spec.resume = true;
  Generate(spec);
  const SendDecode decode = Only<SendDecode>();
  EXPECT_EQ(decode.reservation_lease,
            config_.reservation_lease + config_.reservation_lease_per_token *
                                            static_cast<int64_t>(decode.prompt_ids.size()));
  Answer(decode.worker, decode.command);
  const SendPrefill prefill = Only<SendPrefill>();
  EXPECT_EQ(prefill.worker, WorkerId("p"));
  EXPECT_EQ(prefill.reservation, decode.reservation);
  EXPECT_EQ(prefill.attention_worker, WorkerId("a"));
  EXPECT_EQ(prefill.attention_address, "a:1");
  EXPECT_EQ(prefill.ids, (std::vector<TokenId>{0, 1, 2, 70, 71}));
  EXPECT_EQ(prefill.sequence, Key("r", 0, 2));
}

TEST_F(PlacementTest, OneTokenPromptSkipsThePrefillWorker) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  Register(MakeWorker("p", kPrefillOnly));
  Generate(MakeSpec("r", 1));
  const SendDecode decode = Only<SendDecode>();
  Answer(decode.worker, decode.command);
  EXPECT_TRUE(All<SendPrefill>().empty());
  EXPECT_EQ(Only<TellPlaced>().prefill_worker, WorkerId("a"));
}

TEST_F(PlacementTest, WithoutAFreePrefillSlotNothingIsReserved) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  WorkerDescription p = MakeWorker("p", kPrefillOnly);
  p.capacity.prefill_slots = 1;
  Register(p);
  Generate(MakeSpec("r1"));
  const SendDecode decode = Only<SendDecode>();
  Generate(MakeSpec("r2"));
  EXPECT_TRUE(All<SendDecode>().empty());
  Answer(decode.worker, decode.command);
  Answer(Only<SendPrefill>().worker, Only<SendPrefill>().command);
  EXPECT_TRUE(All<SendDecode>().empty());
  Tell(SequencePrefilled{WorkerId("p"), Key("r1")});
  EXPECT_EQ(Only<SendDecode>().request, RequestId("r2"));
}

TEST_F(PlacementTest, RequestsArePlacedInTheOrderOfArrivalAndResumesFirst) {
  Connect();
  Generate(MakeSpec("r1"));
  Generate(MakeSpec("r2"));
  GenerateSpec resume = MakeSpec("r0");
  resume.choices[0].attempt = 1;
  resume.choices[0].emitted_ids = {5};
  resume.resume = true;
  Generate(resume);
  EXPECT_EQ(controller_->Snapshot().queued_requests, 3u);
  Register(MakeWorker("c", kAllStages));
  std::vector<std::string> order;
  for (const SendDecode& decode : All<SendDecode>()) order.push_back(decode.request.value());
  EXPECT_EQ(order, (std::vector<std::string>{"r0", "r1", "r2"}));
}

TEST_F(PlacementTest, RefusedForLackOfRoomItGoesToTheNextAttentionWorker) {
  Connect();
  Register(MakeWorker("a1", kAllStages));
  Register(MakeWorker("a2", kAllStages));
  Generate(MakeSpec("r"));
  const SendDecode first = Only<SendDecode>();
  EXPECT_EQ(first.worker, WorkerId("a1"));
  Answer(first.worker, first.command, absl::ResourceExhaustedError("full"));
  const SendDecode second = Only<SendDecode>();
  EXPECT_EQ(second.worker, WorkerId("a2"));
  EXPECT_NE(second.reservation, first.reservation);
  Answer(second.worker, second.command);
  EXPECT_EQ(Only<TellPlaced>().attention_worker, WorkerId("a2"));
}

TEST_F(PlacementTest, RefusedByAllItWaitsForAHeartbeatInsteadOfSpinning) {
  Connect();
  Register(MakeWorker("c", kAllStages));
  Generate(MakeSpec("r"));
  Answer(WorkerId("c"), Only<SendDecode>().command, absl::ResourceExhaustedError("full"));
  EXPECT_TRUE(All<SendDecode>().empty());
  EXPECT_TRUE(All<TellEnd>().empty());
  Tell(TimePassed{});
  EXPECT_TRUE(All<SendDecode>().empty());
  Heartbeat("c", {.kv_blocks_free = 64});
  EXPECT_EQ(Only<SendDecode>().request, RequestId("r"));
}

TEST_F(PlacementTest, RefusedForGoodItEndsWithTheWorkersWord) {
  Connect();
  Register(MakeWorker("c", kAllStages));
  Generate(MakeSpec("r"));
  Answer(WorkerId("c"), Only<SendDecode>().command, absl::InvalidArgumentError("2 is wrong"));
  const TellEnd end = Only<TellEnd>();
  EXPECT_EQ(end.end.reason, EndReason::kFailed);
  EXPECT_EQ(end.end.status, absl::InvalidArgumentError("2 is wrong"));
  EXPECT_EQ(controller_->Snapshot().queued_requests, 0u);
}

TEST_F(PlacementTest, HigherAttemptAtTheWorkerEndsItAsSuperseded) {
  Connect();
  Register(MakeWorker("c", kAllStages));
  Generate(MakeSpec("r"));
  Answer(WorkerId("c"), Only<SendDecode>().command,
         absl::FailedPreconditionError("attempt 3 is here"));
  EXPECT_EQ(Only<TellEnd>().end.reason, EndReason::kSuperseded);
}

TEST_F(PlacementTest, AttemptThatAnOlderRouterPlacedThereIsToldPlaced) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  Register(MakeWorker("p", kPrefillOnly));
  Generate(MakeSpec("r"));
  Answer(WorkerId("a"), Only<SendDecode>().command, absl::AlreadyExistsError("here"));
  EXPECT_EQ(Only<TellPlaced>().attention_worker, WorkerId("a"));
  EXPECT_TRUE(All<SendPrefill>().empty()) << "the older router's prefill goes on";
}

TEST_F(PlacementTest, RefusedPrefillGoesToTheNextWorkerWithTheSameReservation) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  Register(MakeWorker("p1", kPrefillOnly));
  Register(MakeWorker("p2", kPrefillOnly));
  Generate(MakeSpec("r"));
  const SendDecode decode = Only<SendDecode>();
  Answer(decode.worker, decode.command);
  const SendPrefill first = Only<SendPrefill>();
  EXPECT_EQ(first.worker, WorkerId("p1"));
  Answer(first.worker, first.command, absl::ResourceExhaustedError("full"));
  const SendPrefill second = Only<SendPrefill>();
  EXPECT_EQ(second.worker, WorkerId("p2"));
  EXPECT_EQ(second.reservation, decode.reservation);
}

TEST_F(PlacementTest, WithNoPrefillWorkerLeftTheReservationIsGivenBackAndTheGatewayComesAgain) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  Register(MakeWorker("p", kPrefillOnly));
  Generate(MakeSpec("r"));
  const SendDecode decode = Only<SendDecode>();
  Answer(decode.worker, decode.command);
  Answer(WorkerId("p"), Only<SendPrefill>().command, absl::ResourceExhaustedError("full"));
  const SendRelease release = Only<SendRelease>();
  EXPECT_EQ(release.worker, WorkerId("a"));
  EXPECT_EQ(release.reservation, decode.reservation);
  EXPECT_EQ(release.reason, EndReason::kSuperseded);
  EXPECT_TRUE(All<TellEnd>().empty()) << "the attention worker tells the gateway";
  EXPECT_EQ(controller_->Snapshot().open_requests, 0u);
  // The gateway's next attempt waits until the prefill worker has room again: nothing is reserved
  // meanwhile.
  GenerateSpec again = MakeSpec("r");
  again.choices[0].attempt = 1;
  again.resume = true;
  Generate(again);
  EXPECT_TRUE(All<SendDecode>().empty());
  Heartbeat("p", {});
  EXPECT_EQ(Only<SendDecode>().choices[0].attempt, 1u);
}

TEST_F(PlacementTest, PrefillThatFailsForItsOwnReasonEndsTheRequestOnceTheOthersHaveTried) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  Register(MakeWorker("p1", kPrefillOnly));
  Register(MakeWorker("p2", kPrefillOnly));
  Generate(MakeSpec("r"));
  Answer(WorkerId("a"), Only<SendDecode>().command);
  Answer(WorkerId("p1"), Only<SendPrefill>().command);
  const SequenceEnd broken{EndReason::kFailed, absl::InternalError("layer 3 is broken")};
  Tell(SequenceEnded{WorkerId("p1"), Key("r"), broken});
  EXPECT_EQ(Only<SendPrefill>().worker, WorkerId("p2"));
  Tell(SequenceEnded{WorkerId("p2"), Key("r"), broken});
  EXPECT_EQ(Only<TellEnd>().end.status, broken.status);
  EXPECT_EQ(Only<SendRelease>().worker, WorkerId("a"));
  EXPECT_EQ(controller_->Snapshot().open_requests, 0u);
  EXPECT_EQ(controller_->Snapshot().live_sequences, 0u);
}

TEST_F(PlacementTest, PrefillThatTheWorkerCallsInvalidIsTriedNowhereElse) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  Register(MakeWorker("p1", kPrefillOnly));
  Register(MakeWorker("p2", kPrefillOnly));
  Generate(MakeSpec("r"));
  Answer(WorkerId("a"), Only<SendDecode>().command);
  Answer(WorkerId("p1"), Only<SendPrefill>().command,
         absl::InvalidArgumentError("id 9 is no token"));
  EXPECT_TRUE(All<SendPrefill>().empty());
  EXPECT_EQ(Only<TellEnd>().end.status, absl::InvalidArgumentError("id 9 is no token"));
}

// Found by the simulator: the first prefill worker was done and died before it could say so.
TEST_F(PlacementTest, ReservationThatNoLongerWaitsForKvIsLeftToItsAttentionWorker) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  Register(MakeWorker("p1", kPrefillOnly));
  Register(MakeWorker("p2", kPrefillOnly));
  Generate(MakeSpec("r"));
  Answer(WorkerId("a"), Only<SendDecode>().command);
  Lose("p1");
  EXPECT_EQ(Only<SendPrefill>().worker, WorkerId("p2"));
  Tell(SequenceEnded{
      WorkerId("p2"), Key("r"), {EndReason::kFailed, absl::NotFoundError("no reservation waits")}});
  EXPECT_TRUE(commands_.empty());
  EXPECT_EQ(controller_->Snapshot().live_sequences, 1u);
}

TEST_F(PlacementTest, LoadSpreadsOverAttentionWorkers) {
  Connect();
  Register(MakeWorker("a1", kAllStages));
  Register(MakeWorker("a2", kAllStages));
  std::map<std::string, int> placed;
  for (int i = 0; i < 6; i++) {
    Generate(MakeSpec("r" + std::to_string(i)));
    placed[Only<SendDecode>().worker.value()]++;
  }
  EXPECT_EQ(placed["a1"], 3);
  EXPECT_EQ(placed["a2"], 3);
}

TEST_F(PlacementTest, KvThatIsOnItsWayCountsAsUsed) {
  Connect();
  WorkerDescription c = MakeWorker("c", kAllStages);
  c.capacity.kv_blocks = 6;
  Register(c);
  Generate(MakeSpec("r1", 40, 10));  // 3 blocks and one of growth
  EXPECT_EQ(All<SendDecode>().size(), 1u);
  Generate(MakeSpec("r2", 40, 10));
  EXPECT_TRUE(All<SendDecode>().empty());
  // A heartbeat from before the Decode arrived does not make room.
  Heartbeat("c", {.kv_blocks_free = 6});
  EXPECT_TRUE(All<SendDecode>().empty());
}

TEST_F(PlacementTest, ChoicesOfOneRequestShareOneDecode) {
  Connect();
  Register(MakeWorker("a", kAttentionAndFfn));
  Register(MakeWorker("p", kPrefillOnly));
  Generate(MakeSpec("r", 20, 10, 3));
  const SendDecode decode = Only<SendDecode>();
  EXPECT_EQ(decode.choices.size(), 3u);
  Answer(decode.worker, decode.command);
  EXPECT_EQ(All<TellPlaced>().size(), 3u);
  EXPECT_EQ(Only<SendPrefill>().sequence, Key("r", 0));
  Tell(SequencePrefilled{WorkerId("p"), Key("r", 0)});
  EXPECT_EQ(controller_->Snapshot().live_sequences, 3u);
  for (uint32_t i = 0; i < 3; i++)
    Tell(SequenceEnded{WorkerId("a"), Key("r", i), {EndReason::kLength, {}}});
  EXPECT_EQ(controller_->Snapshot().live_sequences, 0u);
}

TEST_F(PlacementTest, EventThatOvertakesItsAnswerIsNotLost) {
  Connect();
  Register(MakeWorker("c", kAllStages));
  Generate(MakeSpec("r"));
  const SendDecode decode = Only<SendDecode>();
  Tell(SequencePrefilled{WorkerId("c"), Key("r")});
  Tell(SequenceEnded{WorkerId("c"), Key("r"), {EndReason::kEos, {}}});
  Answer(decode.worker, decode.command);
  EXPECT_TRUE(All<TellEnd>().empty());
  EXPECT_EQ(controller_->Snapshot().live_sequences, 0u);
}

TEST_F(PlacementTest, LongerThanAnyReadyWorkerTakesIsInvalid) {
  Connect();
  Register(MakeWorker("c", kAllStages));  // 64 blocks of 16: 1024 tokens
  Generate(MakeSpec("r", 1000, 25));
  EXPECT_EQ(Only<TellEnd>().end.status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Only<TellEnd>().end.status.message(),
            "1000 prompt tokens + 25 max_tokens exceed the context of 1024 tokens");
  Generate(MakeSpec("r", 1000, 24));
  EXPECT_EQ(All<SendDecode>().size(), 1u);
}

TEST_F(PlacementTest, LengthIsCheckedAgainOnceAWorkerIsThere) {
  Connect();
  Generate(MakeSpec("r", 1000, 25));
  EXPECT_TRUE(All<TellEnd>().empty());
  Register(MakeWorker("c", kAllStages));
  EXPECT_EQ(Only<TellEnd>().end.status.code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tandem::control
