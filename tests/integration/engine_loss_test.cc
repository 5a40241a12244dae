// Goal: what dies, stalls or falls behind costs time and no token, and an end is always told.
// Method: production engines over loopback connectors that a test breaks, on a clock that the test
// moves.

#include <gtest/gtest.h>

#include <atomic>

#include "tests/fakes/engine_world.h"

namespace tandem::test {
namespace {

const std::vector<TokenId> kPrompt{5, 6, 7, 8, 9, 10, 11};

// An attention worker that prefills, and FFN workers F1 and F2.
class EngineLoss : public testing::Test {
 protected:
  void Build(const std::vector<std::string>& group, const EngineWorld::Tune& tune = {}) {
    a_ = &world_.Add("A", {Stage::kPrefill, Stage::kAttention}, tune);
    f1_ = &world_.Add("F1", {Stage::kFfn}, tune);
    f2_ = &world_.Add("F2", {Stage::kFfn}, tune);
    world_.Start();
    ASSERT_EQ(world_.SetGroup(*a_, group), absl::OkStatus());
    for (EngineNode* node : {f1_, f2_, a_}) world_.Sync(*node);  // every stream is open
  }
  Latch there_, go_;  // before the world: hooks hold them
  EngineWorld world_;
  EngineNode* a_ = nullptr;
  EngineNode* f1_ = nullptr;
  EngineNode* f2_ = nullptr;
};

TEST_F(EngineLoss, AnFfnWorkerKilledInMidStepCostsNoToken) {
  Build({"F1", "F2"});
  HoldAt(*f1_, FakeCallKind::kFfn, 7, there_, go_);
  const step::DecodeRequest r = world_.Ask("r", kPrompt, 12), s = world_.Ask("s", {77, 78}, 12);
  ASSERT_EQ(world_.Generate(*a_, nullptr, r), absl::OkStatus());
  ASSERT_EQ(world_.Generate(*a_, nullptr, s), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  world_.activation().Kill(f1_->id());
  world_.ExpectExact(r);
  world_.ExpectExact(s);
  go_.Open();
  world_.ExpectEmpty(*a_);
  EXPECT_EQ(a_->listener.shards_lost("F1"), 1u);
  const EngineCounters counters = world_.Report(*a_).counters;
  EXPECT_GE(counters.calls_resent, 1u);
  EXPECT_EQ(counters.holders_lost, 1u);
}

TEST_F(EngineLoss, WithoutAFallbackTheSequencesEndUnavailableAfterMaxFfnWait) {
  Build({"F1"},
        [](EngineConfig& config, FakeOptions&) { config.max_ffn_wait = Duration::Seconds(3); });
  HoldAt(*f1_, FakeCallKind::kFfn, 4, there_, go_);
  ASSERT_EQ(world_.Generate(*a_, nullptr, world_.Ask("r", kPrompt, 12)), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  world_.activation().Kill(f1_->id());
  go_.Open();
  EXPECT_FALSE(world_.Report(*a_).has_group);
  world_.time().Advance(Duration::Milliseconds(2999));
  world_.Sync(*a_);
  EXPECT_FALSE(world_.gateway().Received(Key("r")).end.has_value());
  world_.time().Advance(Duration::Milliseconds(1));
  const SequenceEnd end = *world_.gateway().WaitForEnd(Key("r")).end;
  EXPECT_EQ(end.reason, EndReason::kFailed);
  EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable) << end.status;
  world_.ExpectEmpty(*a_);
}

TEST_F(EngineLoss, AHolderThatComesBackIsUsedAgain) {
  Build({"F1"});
  HoldAt(*f1_, FakeCallKind::kFfn, 4, there_, go_);
  const step::DecodeRequest r = world_.Ask("r", kPrompt, 12);
  ASSERT_EQ(world_.Generate(*a_, nullptr, r), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  world_.activation().Kill(f1_->id());
  go_.Open();
  world_.Sync(*a_);
  world_.activation().Heal(f1_->id());
  world_.time().Advance(a_->core->config().holder_reopen_delay);
  world_.ExpectExact(r);
  EXPECT_EQ(a_->listener.shards_lost("F1"), 1u);
}

TEST_F(EngineLoss, RowsOnWhichTwoHoldersDieFailInternal) {
  Build({"F1", "F2"});
  const auto poison = [](const FakeCall& call) {
    return call.number >= 3 ? absl::InternalError("poison") : absl::OkStatus();
  };
  f1_->backend->SetHook(poison);
  f2_->backend->SetHook([](const FakeCall&) { return absl::InternalError("poison"); });
  ASSERT_EQ(world_.Generate(*a_, nullptr, world_.Ask("r", kPrompt, 12)), absl::OkStatus());
  const SequenceEnd end = *world_.gateway().WaitForEnd(Key("r")).end;
  EXPECT_EQ(end.status.code(), absl::StatusCode::kInternal) << end.status;
  world_.ExpectEmpty(*a_);
}

TEST_F(EngineLoss, AStaleShardIsReportedAndReplaced) {
  Build({"F1"});
  const step::DecodeRequest r = world_.Ask("r", kPrompt, 6);
  ASSERT_EQ(world_.SetGroup(*a_, {"F1"}, 0, /*shard_epoch=*/99), absl::OkStatus());
  world_.Sync(*f1_);
  world_.Sync(*a_);
  EXPECT_EQ(a_->listener.shards_lost("F1"), 1u);
  EXPECT_FALSE(a_->core->Report().has_group);
  ASSERT_EQ(world_.Generate(*a_, nullptr, r), absl::OkStatus());
  ASSERT_EQ(world_.SetGroup(*a_, {"F1"}), absl::OkStatus());
  world_.ExpectExact(r);
}

TEST_F(EngineLoss, AnOlderGroupIsRefused) {
  Build({"F1"});
  ASSERT_EQ(world_.SetGroup(*a_, {"F2"}, 7), absl::OkStatus());
  EXPECT_EQ(world_.SetGroup(*a_, {"F1"}, 6).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(world_.SetGroup(*a_, {"F1"}, 7), absl::OkStatus());
}

TEST_F(EngineLoss, ANewGroupTakesOverBetweenCallsAndIsAcknowledgedAfterThem) {
  Build({"F1"});
  HoldAt(*f1_, FakeCallKind::kFfn, 5, there_, go_);
  const step::DecodeRequest r = world_.Ask("r", kPrompt, 12);
  ASSERT_EQ(world_.Generate(*a_, nullptr, r), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  Promise<absl::Status> switched;
  a_->core->commands().SetGroup(1, 50, {{f2_->id(), "loopback", 1}},
                                [&](absl::Status status) { switched.Set(status); });
  world_.Sync(*a_);
  EXPECT_FALSE(switched.IsSet()) << "F1 still owes a reply";
  go_.Open();
  EXPECT_EQ(switched.Wait(), absl::OkStatus());
  world_.ExpectExact(r);
  EXPECT_EQ(world_.Report(*f1_).ffn_streams, 0u);
  EXPECT_EQ(world_.Report(*a_).counters.calls_resent, 0u);
}

TEST_F(EngineLoss, AHungHolderThatIsCutIsReplacedAtOnce) {
  Build({"F1", "F2"});
  ASSERT_EQ(world_.Generate(*a_, nullptr, world_.Ask("warm", {1}, 1)), absl::OkStatus());
  world_.gateway().WaitForEnd(Key("warm"));
  world_.activation().Hold(f1_->id());
  const step::DecodeRequest r = world_.Ask("r", kPrompt, 6);
  ASSERT_EQ(world_.Generate(*a_, nullptr, r), absl::OkStatus());
  while (world_.Report(*f1_).counters.ffn_calls < 4) continue;  // it has computed, its reply hangs
  a_->core->commands().SetGroup(1, 60, {{f2_->id(), "loopback", 1}}, [](const absl::Status&) {});
  world_.activation().Kill(f1_->id());
  world_.activation().Release(f1_->id());  // comes after the end of its stream: nobody hears it
  world_.ExpectExact(r);
  EXPECT_EQ(world_.Report(*a_).counters.calls_resent, 1u);
}

TEST_F(EngineLoss, TwoMicroBatchesOverlapAttentionWithFfn) {
  Build({"F1"}, [](EngineConfig& config, FakeOptions&) { config.micro_batches = 2; });
  // Decoding begins for both at once, or the first step would hold one row.
  HoldAt(*a_, FakeCallKind::kHead, 0, there_, go_);
  ASSERT_EQ(world_.Generate(*a_, nullptr, world_.Ask("warm", {1}, 1)), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  // Neither compute goes on before the other has begun: only a pipeline with two micro-batches gets
  // past it.
  Latch attention_computes, ffn_computes;
  f1_->backend->SetHook([&](const FakeCall& call) {
    if (call.kind == FakeCallKind::kFfn && !ffn_computes.IsOpen()) {
      ffn_computes.Open();
      attention_computes.Wait();
    }
    return absl::OkStatus();
  });
  std::atomic<int> attention_calls{0};
  a_->backend->SetHook([&](const FakeCall& call) {
    if (call.kind == FakeCallKind::kAttention && call.layer == 0 && ++attention_calls == 2) {
      attention_computes.Open();
      ffn_computes.Wait();
    }
    return absl::OkStatus();
  });
  const step::DecodeRequest r = world_.Ask("r", {21}, 5), s = world_.Ask("s", {22}, 5);
  std::vector<Promise<absl::Status>> answers(2);
  a_->core->commands().Decode(r, [&](absl::Status status) { answers[0].Set(status); });
  a_->core->commands().Decode(s, [&](absl::Status status) { answers[1].Set(status); });
  go_.Open();
  world_.ExpectExact(r);
  world_.ExpectExact(s);
  EXPECT_EQ(answers[0].Wait(), absl::OkStatus());
  EXPECT_EQ(answers[1].Wait(), absl::OkStatus());
}

TEST_F(EngineLoss, RowsOfTwoAttentionWorkersAreMerged) {
  EngineNode& b = world_.Add("B", {Stage::kPrefill, Stage::kAttention});
  EngineNode& c = world_.Add("C", {Stage::kPrefill, Stage::kAttention});
  Build({"F1"});
  ASSERT_EQ(world_.SetGroup(b, {"F1"}), absl::OkStatus());
  ASSERT_EQ(world_.SetGroup(c, {"F1"}), absl::OkStatus());
  // While F1 computes a call of A, the first layer's calls of B and C arrive.
  HoldAt(*f1_, FakeCallKind::kFfn, 0, there_, go_);
  const step::DecodeRequest r = world_.Ask("r", {1}, 6), s = world_.Ask("s", {2}, 6),
                            t = world_.Ask("t", {3}, 6);
  ASSERT_EQ(world_.Generate(*a_, nullptr, r), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  for (auto& [node, request] : {std::pair(&b, &s), std::pair(&c, &t)}) {
    Latch computes, open;
    open.Open();
    HoldAt(*node, FakeCallKind::kAttention, 0, computes, open);
    ASSERT_EQ(world_.Generate(*node, nullptr, *request), absl::OkStatus());
    ASSERT_TRUE(computes.Wait());
    world_.Sync(*node);  // behind that compute, which sent its call
    node->backend->SetHook({});
  }
  go_.Open();
  world_.ExpectExact(r);
  world_.ExpectExact(s);
  world_.ExpectExact(t);
  EXPECT_GE(world_.Report(*f1_).counters.ffn_merged_calls, 2u);
}

TEST_F(EngineLoss, ABackendThatFailsEndsTheRowsOfThatCallOnly) {
  Build({"F1"});
  a_->backend->SetHook([](const FakeCall& call) {
    return call.kind == FakeCallKind::kHead && call.number == 3 ? absl::InternalError("planted")
                                                                : absl::OkStatus();
  });
  ASSERT_EQ(world_.Generate(*a_, nullptr, world_.Ask("r", kPrompt, 200)), absl::OkStatus());
  const ReceivedSequence received = world_.gateway().WaitForEnd(Key("r"));
  EXPECT_EQ(received.end->status.message(), "planted");
  EXPECT_EQ(received.tokens.size(), 3u);
  const step::DecodeRequest s = world_.Ask("s", kPrompt, 3);
  ASSERT_EQ(world_.Generate(*a_, nullptr, s), absl::OkStatus());
  world_.ExpectExact(s);
  world_.ExpectEmpty(*a_);
}

TEST_F(EngineLoss, TheOldestSequenceIsNeverPreempted) {
  Build({"F1"},
        [](EngineConfig&, FakeOptions& options) { options.kv_blocks = 6; });  // 24 positions
  const step::DecodeRequest first = world_.Ask("first", {1, 2, 3, 4}, 16),
                            second = world_.Ask("second", {5, 6, 7, 8}, 16);
  HoldAt(*a_, FakeCallKind::kHead, 0, there_, go_);
  ASSERT_EQ(world_.Generate(*a_, nullptr, first), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  std::vector<Promise<absl::Status>> answer(1);
  step::DecodeRequest local = second;
  local.local_prefill = true;
  a_->core->commands().Decode(local, [&](absl::Status status) { answer[0].Set(status); });
  go_.Open();
  ASSERT_EQ(answer[0].Wait(), absl::OkStatus());
  world_.ExpectExact(first);
  const ReceivedSequence cut = world_.gateway().WaitForEnd(Key("second"));
  ASSERT_EQ(cut.end->reason, EndReason::kPreempted);
  // The next attempt goes on where it was cut.
  step::DecodeRequest again = second;
  again.reservation = ReservationId("second again");
  again.choices[0].attempt = 1;
  again.choices[0].emitted_ids = cut.tokens;
  ASSERT_EQ(world_.Generate(*a_, nullptr, again), absl::OkStatus());
  std::vector<TokenId> tokens = cut.tokens;
  for (TokenId id : world_.gateway().WaitForEnd(Key("second", 0, 1)).tokens) tokens.push_back(id);
  EXPECT_EQ(tokens, ExpectedTokens(world_.model(), second.prompt_ids, 16, second.sampling));
  world_.ExpectEmpty(*a_);
}

TEST_F(EngineLoss, ANewerAttemptEndsTheOlder) {
  Build({"F1"});
  HoldAt(*a_, FakeCallKind::kHead, 3, there_, go_);
  ASSERT_EQ(world_.Generate(*a_, nullptr, world_.Ask("r", kPrompt, 200)), absl::OkStatus());
  const ReceivedSequence had = world_.gateway().WaitForTokens(Key("r"), 3);
  ASSERT_TRUE(there_.Wait());
  step::DecodeRequest newer = world_.Ask("r", kPrompt, 8);
  newer.reservation = ReservationId("r again");
  newer.local_prefill = true;
  newer.choices[0].attempt = 1;
  newer.choices[0].emitted_ids = had.tokens;
  Promise<absl::Status> answer;
  a_->core->commands().Decode(newer, [&](absl::Status status) { answer.Set(status); });
  go_.Open();
  EXPECT_EQ(answer.Wait(), absl::OkStatus());
  EXPECT_EQ(world_.gateway().WaitForEnd(Key("r")).end->reason, EndReason::kSuperseded);
  EXPECT_EQ(world_.gateway().WaitForEnd(Key("r", 0, 1)).end->reason, EndReason::kLength);
  world_.ExpectEmpty(*a_);
}

TEST_F(EngineLoss, DrainRefusesNewWorkFinishesTheOldAndSaysSo) {
  Build({"F1"});
  HoldAt(*a_, FakeCallKind::kHead, 1, there_, go_);
  const step::DecodeRequest r = world_.Ask("r", kPrompt, 5);
  ASSERT_EQ(world_.Generate(*a_, nullptr, r), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  Promise<absl::Status> drained, refused;
  a_->core->commands().Drain([&](absl::Status status) { drained.Set(status); });
  a_->core->commands().Decode(world_.Ask("s", {1}, 1),
                              [&](absl::Status status) { refused.Set(status); });
  EXPECT_FALSE(drained.IsSet());
  go_.Open();
  EXPECT_EQ(refused.Wait()->code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(drained.Wait(), absl::OkStatus());
  world_.ExpectExact(r);
  EXPECT_TRUE(world_.Report(*a_).load.draining);
  // An FFN worker is drained when nobody holds a stream to it any more.
  Promise<absl::Status> ffn_drained;
  f1_->core->commands().Drain([&](absl::Status status) { ffn_drained.Set(status); });
  world_.Sync(*f1_);
  EXPECT_FALSE(ffn_drained.IsSet());
  ASSERT_EQ(world_.SetGroup(*a_, {"F2"}), absl::OkStatus());
  EXPECT_EQ(ffn_drained.Wait(), absl::OkStatus());
}

TEST_F(EngineLoss, StopPreemptsEverySequenceAndAnswersEveryCommand) {
  Build({"F1"});
  world_.activation().Hold(f1_->id());  // the first step never ends
  ASSERT_EQ(world_.Generate(*a_, nullptr, world_.Ask("r", kPrompt, 50)), absl::OkStatus());
  Promise<absl::Status> drained;
  a_->core->commands().Drain([&](absl::Status status) { drained.Set(status); });
  a_->core->Stop();  // during the local prefill, or while the step waits
  // The gateway asks for it again elsewhere, with what it has.
  EXPECT_EQ(world_.gateway().WaitForEnd(Key("r")).end->reason, EndReason::kPreempted);
  EXPECT_EQ(drained.Wait()->code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(world_.gateway().WaitForClose().code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(world_.Decode(*a_, world_.Ask("late", {1}, 1)).code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(a_->core->Report().load.kv_blocks_free, a_->core->config().kv_blocks);
}

TEST_F(EngineLoss, AnFfnWorkerThatStopsIsLostLikeOneThatDies) {
  Build({"F1", "F2"});
  const step::DecodeRequest r = world_.Ask("r", kPrompt, 100);
  ASSERT_EQ(world_.Generate(*a_, nullptr, r), absl::OkStatus());
  world_.gateway().WaitForTokens(Key("r"), 3);
  f1_->core->Stop();
  world_.ExpectExact(r);
}

}  // namespace
}  // namespace tandem::test
