#include <functional>

#include "tests/unit/scheduler/control/controller_fixture.h"

namespace tandem::control {
namespace {

using RegistryTest = ControllerTest;

// A worker that differs from one that would be taken, and why it is refused.
struct Refusal {
  std::function<void(WorkerDescription&)> change;
  absl::StatusCode code;
  std::string message;
};

class RefusalTest : public ControllerTest {
 protected:
  void ExpectRefused(const std::vector<Refusal>& cases) {
    Register(MakeWorker("c", kAllStages));
    for (const Refusal& c : cases) {
      SCOPED_TRACE(c.message);
      WorkerDescription worker = MakeWorker("x", kAllStages);
      c.change(worker);
      Tell(WorkerRegistered{worker});
      EXPECT_EQ(Only<AnswerRegistration>().status, absl::Status(c.code, c.message));
      EXPECT_EQ(controller_->Snapshot().workers.size(), 1u);
    }
  }
};

TEST_F(RefusalTest, WorkerThatDiffersFromTheOthersIsToldBothValues) {
  ExpectRefused({
      {[](auto& w) { w.model = "other"; }, absl::StatusCode::kNotFound,
       "worker x serves model 'other', this router 'm'"},
      {[](auto& w) { w.dimensions.layers = 5; }, absl::StatusCode::kFailedPrecondition,
       "worker x: the model has layers 5, that of worker c has 4"},
      {[](auto& w) { w.dimensions.hidden = 65; }, absl::StatusCode::kFailedPrecondition,
       "worker x: the model has hidden 65, that of worker c has 64"},
      {[](auto& w) { w.dimensions.kv_heads = 1; }, absl::StatusCode::kFailedPrecondition,
       "worker x: the model has kv_heads 1, that of worker c has 2"},
      {[](auto& w) { w.dimensions.head_dim = 8; }, absl::StatusCode::kFailedPrecondition,
       "worker x: the model has head_dim 8, that of worker c has 16"},
      {[](auto& w) { w.dimensions.vocabulary = 8; }, absl::StatusCode::kFailedPrecondition,
       "worker x: the model has vocabulary 8, that of worker c has 1000"},
      {[](auto& w) { w.numerics.ffn = "g"; }, absl::StatusCode::kFailedPrecondition,
       "worker x: numerics class of ffn is 'g', that of worker c is 'f-class'"},
      {[](auto& w) { w.numerics.prefill = "g"; }, absl::StatusCode::kFailedPrecondition,
       "worker x: numerics class of prefill is 'g', that of worker c is 'p-class'"},
      {[](auto& w) { w.numerics.attention = "g"; }, absl::StatusCode::kFailedPrecondition,
       "worker x: numerics class of attention is 'g', that of worker c is 'a-class'"},
      {[](auto& w) { w.time_scale = 20; }, absl::StatusCode::kFailedPrecondition,
       "worker x: its time_scale is 20, that of worker c 0 (0: real time); a cluster has one"},
  });
}

TEST_F(RefusalTest, ShardThatIsNoneOfTheModelsIsNamed) {
  ExpectRefused({
      {[](auto& w) { w.dimensions.layers = 0; }, absl::StatusCode::kInvalidArgument,
       "worker x: its model has 0 layers; 1 to 4096 are possible"},
      {[](auto& w) {
         w.shard = {3, 3};
       },
       absl::StatusCode::kInvalidArgument, "worker x: its shard: layers [3, 3) are none"},
      {[](auto& w) {
         w.shard = {0, 5};
       },
       absl::StatusCode::kInvalidArgument,
       "worker x: its shard: layers [0, 5) exceed the model's 4"},
      {[](auto& w) {
         w.shard = {0, 4, 0, 0};
       },
       absl::StatusCode::kInvalidArgument,
       "worker x: its shard: column 0/0 is none: it must be below the second number, which is 1 "
       "to 256"},
      {[](auto& w) {
         w.shard = {0, 2};
       },
       absl::StatusCode::kInvalidArgument,
       "worker x: it holds layers [0, 2) of the FFN, but runs more than the ffn stage"},
      {[](auto& w) {
         w.stages = kFfnOnly;
         w.shard = {0, 4, 1, 2};
         w.numerics.ffn = "f-class/whole";
       },
       absl::StatusCode::kInvalidArgument,
       "worker x: its numerics class of ffn says 'whole', its shard 'column/2'"},
  });
}

TEST_F(RefusalTest, WhatADescriptionLacksIsNamed) {
  ExpectRefused({
      {[](auto& w) { w.stages.clear(); }, absl::StatusCode::kInvalidArgument,
       "worker x: it runs no stage"},
      {[](auto& w) { w.address.clear(); }, absl::StatusCode::kInvalidArgument,
       "worker x: its address is empty"},
      {[](auto& w) { w.numerics.ffn.clear(); }, absl::StatusCode::kInvalidArgument,
       "worker x: it runs ffn but its numerics class has no ffn part"},
      {[](auto& w) { w.numerics.prefill.clear(); }, absl::StatusCode::kInvalidArgument,
       "worker x: it runs prefill but its numerics class has no prefill part"},
      {[](auto& w) { w.numerics.attention.clear(); }, absl::StatusCode::kInvalidArgument,
       "worker x: it runs attention but its numerics class has no attention part"},
      {[](auto& w) { w.capacity.prefill_slots = 0; }, absl::StatusCode::kInvalidArgument,
       "worker x: it runs prefill with 0 prefill_slots"},
      {[](auto& w) { w.capacity.kv_blocks = 0; }, absl::StatusCode::kInvalidArgument,
       "worker x: it runs attention with 0 kv_blocks of 16 tokens and 8 max_sequences; each must "
       "be at least 1"},
      {[](auto& w) { w.dimensions.context_tokens = 0; }, absl::StatusCode::kInvalidArgument,
       "worker x: it runs attention with 0 context_tokens"},
  });
}

TEST_F(RegistryTest, PartsOfStagesThatAWorkerDoesNotRunAreNotCompared) {
  Register(MakeWorker("a", kAttentionAndFfn));
  WorkerDescription p = MakeWorker("p", kPrefillOnly);
  p.dimensions.context_tokens = 99;  // a limit, not a shape
  Tell(WorkerRegistered{p});
  EXPECT_EQ(Only<AnswerRegistration>().status, absl::OkStatus());
}

TEST_F(RegistryTest, NewerIncarnationClosesTheOlderOne) {
  Register(MakeWorker("c", kAllStages, 1));
  Tell(WorkerRegistered{MakeWorker("c", kAllStages, 2)});
  EXPECT_EQ(Only<CloseWorker>().incarnation, 1u);
  EXPECT_EQ(Only<AnswerRegistration>().status, absl::OkStatus());
  // The older stream's end is no news.
  Tell(WorkerLost{WorkerId("c"), 1, "closed"});
  ASSERT_EQ(controller_->Snapshot().workers.size(), 1u);
  EXPECT_EQ(controller_->Snapshot().workers[0].description.incarnation, 2u);
}

TEST_F(RegistryTest, OlderIncarnationIsRefused) {
  Register(MakeWorker("c", kAllStages, 2));
  Tell(WorkerRegistered{MakeWorker("c", kAllStages, 1)});
  EXPECT_EQ(Only<AnswerRegistration>().status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(All<CloseWorker>().empty());
}

TEST_F(RegistryTest, SameIncarnationOnANewStreamStartsAfresh) {
  Connect();
  Register(MakeWorker("c", kAllStages, 1));
  Generate(MakeSpec("r"));
  EXPECT_EQ(All<SendDecode>().size(), 1u);
  Tell(WorkerRegistered{MakeWorker("c", kAllStages, 1)});
  EXPECT_TRUE(All<CloseWorker>().empty());
  EXPECT_EQ(Only<SendDecode>().request, RequestId("r"))
      << "the old stream's command has no answer coming";
}

TEST_F(RegistryTest, DrainingWorkerGetsNoNewWorkAndIsToldOnce) {
  Connect();
  Register(MakeWorker("c1", kAllStages));
  Register(MakeWorker("c2", kAllStages));
  Tell(DrainRequested{WorkerId("c1")});
  EXPECT_EQ(Only<SendDrain>().worker, WorkerId("c1"));
  Tell(DrainRequested{WorkerId("c1")});
  EXPECT_TRUE(All<SendDrain>().empty());
  Generate(MakeSpec("r"));
  EXPECT_EQ(Only<SendDecode>().worker, WorkerId("c2"));
  EXPECT_EQ(controller_->Snapshot().workers[0].state, "draining");
}

TEST_F(RegistryTest, WorkerThatSaysItDrainsIsTakenAtItsWord) {
  Connect();
  Register(MakeWorker("c", kAllStages));
  Heartbeat("c", {.kv_blocks_free = 64, .draining = true});
  EXPECT_EQ(All<SendDrain>().size(), 1u);
  EXPECT_FALSE(controller_->Snapshot().ready);
  EXPECT_EQ(controller_->Snapshot().reason, "attention: worker c is draining");
}

TEST_F(RegistryTest, GatewaysLearnWhenTheClusterChanges) {
  Connect();
  EXPECT_EQ(Only<TellClusterState>().reason, "attention: no worker for model 'm' is registered");
  Register(MakeWorker("c", kAllStages));
  const TellClusterState state = Only<TellClusterState>();
  EXPECT_TRUE(state.ready);
  EXPECT_EQ(state.context_tokens, 1024u);  // 64 blocks of 16, less than the context of 2048
  EXPECT_EQ(state.gateways, std::vector<GatewayId>{kGateway});
  ASSERT_EQ(state.attention_workers.size(), 1u);
  EXPECT_EQ(state.attention_workers[0].second, "c:1");
  Heartbeat("c", {.kv_blocks_free = 1});
  EXPECT_TRUE(All<TellClusterState>().empty()) << "nothing changed";
}

class BoundsTest : public ControllerTest {
 protected:
  static ControllerConfig Small() {
    ControllerConfig config;
    config.max_queued_requests = 2;
    config.max_queued_resumes = 1;
    config.max_sequences = 2;
    config.max_workers = 2;
    config.max_gateways = 1;
    config.max_unanswered_commands = 1;
    return config;
  }
  BoundsTest() : ControllerTest(Small()) {}
};

TEST_F(BoundsTest, FullQueueIsAnsweredWithRetryAfter) {
  Connect();
  Generate(MakeSpec("r1"));
  Generate(MakeSpec("r2"));
  Generate(MakeSpec("r3"));
  EXPECT_EQ(Only<TellEnd>().end.status,
            absl::ResourceExhaustedError("2 requests are queued; max_queued_requests is 2"));
  EXPECT_GE(Only<TellEnd>().retry_after, Duration::Seconds(1));
  GenerateSpec resume = MakeSpec("r4");
  resume.resume = true;
  Generate(resume);
  EXPECT_TRUE(All<TellEnd>().empty()) << "resumes have a bound of their own";
  resume.request = RequestId("r5");
  Generate(resume);
  EXPECT_EQ(Only<TellEnd>().end.status.message(),
            "1 resumed requests are queued; max_queued_resumes is 1");
}

TEST_F(BoundsTest, PlacedSequencesAreBounded) {
  Connect();
  Register(MakeWorker("c", kAllStages));
  for (const char* name : {"r1", "r2"}) {
    Generate(MakeSpec(name));
    Answer(WorkerId("c"), Only<SendDecode>().command);
  }
  Generate(MakeSpec("r3"));
  EXPECT_TRUE(All<SendDecode>().empty());
  Tell(SequenceEnded{WorkerId("c"), Key("r1"), {EndReason::kEos, {}}});
  EXPECT_EQ(Only<SendDecode>().request, RequestId("r3"));
}

TEST_F(BoundsTest, UnansweredCommandsOfAWorkerAreBounded) {
  Connect();
  Register(MakeWorker("c", kAllStages));
  Generate(MakeSpec("r1"));
  const SendDecode decode = Only<SendDecode>();
  Generate(MakeSpec("r2"));
  EXPECT_TRUE(All<SendDecode>().empty());
  Answer(decode.worker, decode.command);
  EXPECT_EQ(Only<SendDecode>().request, RequestId("r2"));
}

TEST_F(BoundsTest, WorkersAreBounded) {
  Register(MakeWorker("c1", kAllStages));
  Register(MakeWorker("c2", kAllStages));
  Tell(WorkerRegistered{MakeWorker("c3", kAllStages)});
  EXPECT_EQ(Only<AnswerRegistration>().status,
            absl::ResourceExhaustedError("worker c3: 2 workers are registered; max_workers is 2"));
}

TEST_F(BoundsTest, GatewaysAreBounded) {
  Connect();
  Tell(GatewayConnected{GatewayId("other")});
  EXPECT_TRUE(commands_.empty());
  Tell(GenerateArrived{GatewayId("other"), MakeSpec("r")});
  EXPECT_EQ(Only<TellEnd>().end.status.code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(RegistryTest, MalformedRequestsAreRefused) {
  Connect();
  GenerateSpec spec = MakeSpec("r", 0);
  Generate(spec);
  EXPECT_EQ(Only<TellEnd>().end.status.message(), "the prompt has 0 tokens; at least 1 is needed");
  Generate(MakeSpec("r", 5, 0));
  EXPECT_EQ(Only<TellEnd>().end.status.message(), "max_tokens is 0; at least 1 is needed");
  Generate(MakeSpec("r", 5, 5, 129));
  EXPECT_EQ(All<TellEnd>().size(), 129u);
  spec = MakeSpec("r", 5, 5, 2);
  spec.choices[1].emitted_ids = {1};
  Generate(spec);
  EXPECT_EQ(All<TellEnd>().size(), 2u);
  spec = MakeSpec("r", 5, 2);
  spec.choices[0].emitted_ids = {1, 2};
  Generate(spec);
  EXPECT_EQ(Only<TellEnd>().end.status.message(),
            "choice 0 has emitted 2 tokens of max_tokens 2: none is left");
}

}  // namespace
}  // namespace tandem::control
