// Goal: token streams and KV transfers survive a break, and a peer that never comes back frees what
// it held. Method: as engine_loss_test.

#include <gtest/gtest.h>

#include <atomic>

#include "tests/fakes/engine_world.h"

namespace tandem::test {
namespace {

const std::vector<TokenId> kPrompt{5, 6, 7, 8, 9, 10, 11, 12, 13};

class EngineTokens : public testing::Test {
 protected:
  void Build(const EngineWorld::Tune& tune = {}) {
    c_ = &world_.Add("C", {Stage::kPrefill, Stage::kAttention, Stage::kFfn}, tune);
    c_->core->Start();
  }

  Latch there_, go_;
  EngineWorld world_;
  EngineNode* c_ = nullptr;
};

TEST_F(EngineTokens, AGatewayWhoseStreamBrokeGoesOnByPosition) {
  Build();
  std::shared_ptr<TokenSink> stream =
      world_.gateway().Attach(c_->core->tokens(), /*acknowledge=*/false);
  const step::DecodeRequest r = world_.Ask("r", kPrompt, 60);
  HoldAt(*c_, FakeCallKind::kHead, 4, there_, go_);
  ASSERT_EQ(world_.Generate(*c_, nullptr, r), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  c_->core->tokens().Detach(world_.gateway().id(), stream.get());
  go_.Open();
  world_.Sync(*c_);
  world_.time().Advance(c_->core->config().gateway_lease - Duration::Milliseconds(1));
  world_.gateway().Attach(c_->core->tokens());
  world_.ExpectExact(r);
  EXPECT_EQ(world_.gateway().Received(Key("r")).repeated, 0u) << "it said what it had";
  world_.ExpectEmpty(*c_);
}

TEST_F(EngineTokens, AGatewayThatStaysAwayLosesItsSequences) {
  Build();
  std::shared_ptr<TokenSink> stream = world_.gateway().Attach(c_->core->tokens());
  // Its stream breaks while the fourth token is drawn, and its lease runs out while the sixth is.
  Latch late, on;
  c_->backend->SetHook([&](const FakeCall& call) {
    if (call.kind == FakeCallKind::kHead && call.number == 3) {
      there_.Open();
      go_.Wait();
    } else if (call.kind == FakeCallKind::kHead && call.number == 5) {
      late.Open();
      on.Wait();
    }
    return absl::OkStatus();
  });
  ASSERT_EQ(world_.Generate(*c_, nullptr, world_.Ask("r", kPrompt, 240)), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  c_->core->tokens().Detach(world_.gateway().id(), stream.get());
  go_.Open();
  ASSERT_TRUE(late.Wait());
  world_.time().Advance(c_->core->config().gateway_lease);
  on.Open();
  EXPECT_EQ(c_->listener.WaitForEnd(Key("r")).reason, EndReason::kCancelled);
  world_.ExpectEmpty(*c_);
  // Too late: it is told that nobody holds the sequence.
  world_.gateway().Attach(c_->core->tokens());
  const SequenceEnd end = *world_.gateway().WaitForEnd(Key("r")).end;
  EXPECT_EQ(end.reason, EndReason::kSuperseded) << "lost there: the gateway asks again";
}

TEST_F(EngineTokens, SequencesOfAGatewayThatNeverCameAreCancelled) {
  Build();
  HoldAt(*c_, FakeCallKind::kHead, 3, there_, go_);
  ASSERT_EQ(world_.Generate(*c_, nullptr, world_.Ask("r", kPrompt, 240)), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  world_.time().Advance(c_->core->config().gateway_lease);
  go_.Open();
  EXPECT_EQ(c_->listener.WaitForEnd(Key("r")).reason, EndReason::kCancelled);
  world_.ExpectEmpty(*c_);
}

TEST_F(EngineTokens, AGatewayThatFallsBehindIsCutForGood) {
  Build([](EngineConfig& config, FakeOptions&) { config.max_replay_messages = 5; });
  world_.gateway().Attach(c_->core->tokens(), /*acknowledge=*/false);
  ASSERT_EQ(world_.Generate(*c_, nullptr, world_.Ask("r", kPrompt, 200)), absl::OkStatus());
  const absl::Status closed = world_.gateway().WaitForClose();
  EXPECT_TRUE(IsGatewayOverloaded(closed)) << closed;
  const SequenceEnd end = c_->listener.WaitForEnd(Key("r"));
  EXPECT_EQ(end.reason, EndReason::kFailed);
  EXPECT_TRUE(IsGatewayOverloaded(end.status)) << end.status;
  EXPECT_EQ(world_.gateway().Received(Key("r")).tokens.size(), 5u);
  world_.ExpectEmpty(*c_);
  // It comes back without having heard why its stream broke: the end says it.
  world_.gateway().Attach(c_->core->tokens());
  const SequenceEnd told = *world_.gateway().WaitForEnd(Key("r")).end;
  EXPECT_EQ(told.reason, EndReason::kFailed);
  EXPECT_TRUE(IsGatewayOverloaded(told.status)) << told.status;
}

// Its last message is past the replay buffer: the end in it must not look like a loss.
TEST_F(EngineTokens, ASequenceThatEndsAsItsGatewayFallsBehindIsToldSoToo) {
  Build([](EngineConfig& config, FakeOptions&) { config.max_replay_messages = 5; });
  world_.gateway().Attach(c_->core->tokens(), /*acknowledge=*/false);
  ASSERT_EQ(world_.Generate(*c_, nullptr, world_.Ask("r", kPrompt, 6)), absl::OkStatus());
  EXPECT_TRUE(IsGatewayOverloaded(world_.gateway().WaitForClose()));
  EXPECT_EQ(c_->listener.WaitForEnd(Key("r")).reason, EndReason::kLength);
  world_.gateway().Attach(c_->core->tokens());
  const SequenceEnd told = *world_.gateway().WaitForEnd(Key("r")).end;
  EXPECT_TRUE(IsGatewayOverloaded(told.status)) << static_cast<int>(told.reason) << told.status;
}

TEST_F(EngineTokens, TokensPastAStopAreDroppedAndCountedAsWasted) {
  Build();
  world_.gateway().Attach(c_->core->tokens());
  HoldAt(*c_, FakeCallKind::kHead, 5, there_, go_);
  ASSERT_EQ(world_.Generate(*c_, nullptr, world_.Ask("r", kPrompt, 240)), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  c_->core->tokens().Stop(Key("r"), 4, EndReason::kStopped);
  go_.Open();
  EXPECT_EQ(world_.gateway().WaitForEnd(Key("r")).end->reason, EndReason::kStopped);
  world_.ExpectEmpty(*c_);
  // The fifth had come before the gateway's word, the sixth was being drawn.
  EXPECT_EQ(world_.Report(*c_).counters.tokens_wasted, 2u);
}

TEST_F(EngineTokens, MoreGatewaysThanTheLimitAreRefused) {
  Build([](EngineConfig& config, FakeOptions&) { config.max_gateways = 1; });
  world_.gateway().Attach(c_->core->tokens());
  TokenReceiver second("second");
  second.Attach(c_->core->tokens());
  EXPECT_EQ(second.WaitForClose().code(), absl::StatusCode::kResourceExhausted);
  step::DecodeRequest r = world_.Ask("r", kPrompt, 2);
  r.gateway = second.id();
  EXPECT_EQ(world_.Generate(*c_, nullptr, r).code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(EngineTokens, AFullMailboxIsAnAnswer) {
  Build([](EngineConfig& config, FakeOptions&) { config.max_mailbox_events = 4; });
  world_.gateway().Attach(c_->core->tokens());
  HoldAt(*c_, FakeCallKind::kEmbed, 0, there_, go_);
  ASSERT_EQ(world_.Generate(*c_, nullptr, world_.Ask("r", {1}, 1)), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  std::vector<Promise<absl::Status>> answers(5);
  for (size_t i = 0; i < answers.size(); i++) {
    c_->core->commands().Decode(world_.Ask(absl::StrCat("s", i), {2}, 1),
                                [&answers, i](absl::Status s) { answers[i].Set(s); });
  }
  EXPECT_EQ(answers[4].Wait()->code(), absl::StatusCode::kResourceExhausted);
  go_.Open();
  for (size_t i = 0; i < 4; i++) EXPECT_EQ(answers[i].Wait(), absl::OkStatus());
}

class EngineKv : public testing::Test {
 protected:
  EngineKv() {
    p_ = &world_.Add("P", {Stage::kPrefill},
                     [](EngineConfig& config, FakeOptions&) { config.send_window_bytes = 100; });
    a_ = &world_.Add("A", {Stage::kAttention, Stage::kFfn});
    world_.Start();
  }

  Latch there_, go_;
  EngineWorld world_;
  EngineNode* p_;
  EngineNode* a_;
};

TEST_F(EngineKv, ABrokenTransferIsToldAndTheNextPrefillFillsTheSameReservation) {
  HoldAt(*p_, FakeCallKind::kAttention, 4, there_, go_);
  const step::DecodeRequest r = world_.Ask("r", kPrompt, 6);
  ASSERT_EQ(world_.Generate(*a_, p_, r), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  world_.kv().Break(a_->id());
  go_.Open();
  EXPECT_EQ(p_->listener.WaitForEnd(Key("r")).status.code(), absl::StatusCode::kUnavailable);
  world_.ExpectEmpty(*p_);
  ASSERT_EQ(world_.Prefill(*p_, r, *a_), absl::OkStatus());
  world_.ExpectExact(r);
  world_.ExpectEmpty(*p_);
  EXPECT_TRUE(p_->listener.Prefilled(Key("r")));
  world_.ExpectEmpty(*a_);
}

TEST_F(EngineKv, FramesOfAFreedReservationAreRefusedAndCounted) {
  HoldAt(*p_, FakeCallKind::kAttention, 2, there_, go_);
  ASSERT_EQ(world_.Generate(*a_, p_, world_.Ask("r", kPrompt, 6)), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  ASSERT_EQ(world_.Release(*a_, "r", EndReason::kCancelled), absl::OkStatus());
  world_.ExpectEmpty(*a_);
  go_.Open();
  EXPECT_EQ(p_->listener.WaitForEnd(Key("r")).status.code(), absl::StatusCode::kNotFound);
  world_.ExpectEmpty(*p_);
  EXPECT_GE(world_.Report(*a_).counters.kv_frames_dropped, 1u);
}

TEST_F(EngineKv, AReservationWithoutFramesIsFreedAfterItsLease) {
  step::DecodeRequest r = world_.Ask("r", kPrompt, 6);
  r.lease = Duration::Seconds(5);
  ASSERT_EQ(world_.Decode(*a_, r), absl::OkStatus());
  world_.Sync(*a_);
  world_.time().Advance(Duration::Seconds(5));
  const SequenceEnd end = *world_.gateway().WaitForEnd(Key("r")).end;
  EXPECT_EQ(end.status.code(), absl::StatusCode::kUnavailable) << end.status;
  world_.ExpectEmpty(*a_);
}

TEST_F(EngineKv, ManyPromptsToOneWorkerShareOneStreamAndAreExact) {
  std::vector<step::DecodeRequest> requests;
  for (uint32_t i = 0; i < 5; i++) {
    std::vector<TokenId> prompt(4 + 3 * i, i);
    requests.push_back(world_.Ask(absl::StrCat("r", i), prompt, 5));
    ASSERT_EQ(world_.Generate(*a_, p_, requests.back()), absl::OkStatus());
  }
  for (const step::DecodeRequest& request : requests) world_.ExpectExact(request);
  world_.ExpectEmpty(*p_);
  world_.ExpectEmpty(*a_);
}

TEST_F(EngineKv, ADoorOfAnotherStageAnswersThatItDoesNotRunIt) {
  EXPECT_EQ(world_.Decode(*p_, world_.Ask("r", kPrompt, 1)).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(world_.Prefill(*a_, world_.Ask("r", kPrompt, 1), *a_).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(world_.SetGroup(*p_, {"F"}).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(world_.SetGroup(*a_, {"F"}).code(), absl::StatusCode::kFailedPrecondition)
      << "it runs its own FFN";
}

}  // namespace
}  // namespace tandem::test
