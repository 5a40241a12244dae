// Goal: in every topology, batch makeup and chunking a sequence's tokens are the ones that it must
// have, and nothing is held when they have come. Method: production engines over loopback
// connectors, a backend whose every token depends on every row before it.

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <iterator>

#include "tests/fakes/engine_world.h"

namespace tandem::test {
namespace {

std::vector<TokenId> Prompt(uint32_t length, TokenId first) {
  std::vector<TokenId> prompt;
  for (uint32_t i = 0; i < length; i++) prompt.push_back((first + 7 * i) % 1000);
  return prompt;
}

struct Topology {
  const char* name;
  std::vector<std::pair<const char*, std::set<Stage>>> workers;
};

class EngineTopologies : public testing::TestWithParam<Topology> {
 protected:
  void Build(const EngineWorld::Tune& tune = {}) {
    for (const auto& [name, stages] : GetParam().workers) {
      EngineNode& node = world_.Add(name, stages, tune);
      nodes_.push_back(&node);
      if (stages.contains(Stage::kAttention)) attention_ = &node;
      if (stages == std::set<Stage>{Stage::kPrefill}) prefill_ = &node;
      if (stages == std::set<Stage>{Stage::kFfn}) ffn_.push_back(name);
    }
    world_.Start();
    if (ffn_.empty()) return;
    ASSERT_EQ(world_.SetGroup(*attention_, ffn_), absl::OkStatus());
  }
  void ExpectAllEmpty() {
    for (EngineNode* node : nodes_) world_.ExpectEmpty(*node);
  }

  Latch there_, go_;
  EngineWorld world_;
  std::vector<EngineNode*> nodes_;
  EngineNode* attention_ = nullptr;
  EngineNode* prefill_ = nullptr;  // null: local
  std::vector<std::string> ffn_;
};

TEST_P(EngineTopologies, OneSequenceIsExact) {
  Build();
  const step::DecodeRequest request = world_.Ask("r", Prompt(11, 3), 9);
  ASSERT_EQ(world_.Generate(*attention_, prefill_, request), absl::OkStatus());
  world_.ExpectExact(request);
  EXPECT_EQ(attention_->listener.WaitForEnd(Key("r")).reason, EndReason::kLength);
  ExpectAllEmpty();
}

// As on a device: the engine copies them out to send, and replies in.
TEST_P(EngineTopologies, RowsThatTheHostCannotAddressAreCopied) {
  Build([](EngineConfig& config, FakeOptions& options) {
    config.max_micro_batches = 2;
    options.hidden_rows = true;
  });
  const step::DecodeRequest first = world_.Ask("r", Prompt(11, 3), 9),
                            second = world_.Ask("s", Prompt(6, 50), 7);
  ASSERT_EQ(world_.Generate(*attention_, prefill_, first), absl::OkStatus());
  ASSERT_EQ(world_.Generate(*attention_, prefill_, second), absl::OkStatus());
  world_.ExpectExact(first);
  world_.ExpectExact(second);
  ExpectAllEmpty();
}

TEST_P(EngineTopologies, AOneTokenPromptNeedsNoPrefill) {
  Build();
  const step::DecodeRequest request = world_.Ask("r", {42}, 4);
  ASSERT_EQ(world_.Generate(*attention_, prefill_, request), absl::OkStatus());
  world_.ExpectExact(request);
  ExpectAllEmpty();
}

TEST_P(EngineTopologies, SequencesThatJoinAndLeaveARunningBatchAreExact) {
  Build([](EngineConfig& config, FakeOptions& options) {
    config.max_micro_batches = 3;
    options.kv_blocks = 128;
  });
  std::vector<step::DecodeRequest> requests;
  for (uint32_t i = 0; i < 8; i++) {
    requests.push_back(
        world_.Ask(absl::StrCat("r", i), Prompt(1 + 5 * i, 100 * i), 4 + 3 * ((i * 5) % 8)));
    ASSERT_EQ(world_.Generate(*attention_, prefill_, requests.back()), absl::OkStatus());
    if (i % 3 == 2) world_.gateway().WaitForTokens(Key(absl::StrCat("r", i - 2)), 2);
  }
  for (const step::DecodeRequest& request : requests) world_.ExpectExact(request);
  ExpectAllEmpty();
}

TEST_P(EngineTopologies, ChoicesShareThePromptAndPartWays) {
  Build();
  step::DecodeRequest request = world_.Ask("r", Prompt(10, 5), 6);
  request.sampling.temperature = 1;
  request.choices = {{0, 0, 1001, {}}, {1, 0, 1002, {}}, {2, 0, 1003, {}}};
  ASSERT_EQ(world_.Generate(*attention_, prefill_, request), absl::OkStatus());
  for (uint32_t choice = 0; choice < 3; choice++) world_.ExpectExact(request, choice);
  EXPECT_NE(world_.gateway().Received(Key("r", 0)).tokens,
            world_.gateway().Received(Key("r", 1)).tokens);
  ExpectAllEmpty();
}

TEST_P(EngineTopologies, AResumedAttemptGoesOnWhereTheOtherStopped) {
  Build();
  const step::DecodeRequest whole = world_.Ask("r", Prompt(6, 9), 8);
  const std::vector<TokenId> wanted =
      ExpectedTokens(world_.model(), whole.prompt_ids, 8, whole.sampling);
  step::DecodeRequest resumed = whole;
  resumed.choices[0].attempt = 1;
  resumed.choices[0].emitted_ids = {wanted.begin(), wanted.begin() + 3};
  ASSERT_EQ(world_.Generate(*attention_, prefill_, resumed), absl::OkStatus());
  attention_->listener.WaitForEnd(Key("r", 0, 1));
  // The receiver of this attempt never had the first three: what it gets starts at position 3.
  const ReceivedSequence received = world_.gateway().WaitForEnd(Key("r", 0, 1));
  EXPECT_EQ(received.tokens, std::vector<TokenId>(wanted.begin() + 3, wanted.end()));
  ExpectAllEmpty();
}

TEST_P(EngineTopologies, AStepsTokensOfAGatewayTravelInOneMessage) {
  Build();
  std::vector<step::DecodeRequest> requests;
  for (uint32_t i = 0; i < 4; i++) {
    requests.push_back(world_.Ask(absl::StrCat("r", i), {i + 1}, 20));
    ASSERT_EQ(world_.Generate(*attention_, prefill_, requests.back()), absl::OkStatus());
  }
  for (const step::DecodeRequest& request : requests) world_.ExpectExact(request);
  // Each step is one message, and no message is less than a step.
  EXPECT_LE(world_.gateway().last_step(), world_.Report(*attention_).counters.steps);
}

TEST_P(EngineTopologies, TheEndCarriesWhatEachStageCost) {
  Build();
  // Every compute takes 1 ms of the clock that all workers share; a lone sequence is never beside
  // another.
  for (EngineNode* node : nodes_) {
    node->backend->SetHook([this](const FakeCall& call) {
      if (call.kind <= FakeCallKind::kHead) world_.time().Advance(Duration::Milliseconds(1));
      return absl::OkStatus();
    });
  }
  const step::DecodeRequest request = world_.Ask("r", Prompt(5, 1), 2);
  ASSERT_EQ(world_.Generate(*attention_, prefill_, request), absl::OkStatus());
  const SequenceCost cost = world_.gateway().WaitForEnd(Key("r")).cost;
  ASSERT_EQ(cost.times.size(), 3u);
  for (const StageTime& time : cost.times) {
    switch (time.stage) {
      case Stage::kPrefill:  // one chunk: embed, 3 attention layers, 2 FFN layers (the last one's
                             // feeds nobody)
        EXPECT_EQ(time.worker, (prefill_ != nullptr ? prefill_ : attention_)->id().value());
        EXPECT_NEAR(time.seconds, 0.006, 1e-9);
        EXPECT_EQ(time.calls, 3u);
        break;
      case Stage::kAttention:  // two steps of embed, 3 layers, head
        EXPECT_EQ(time.worker, attention_->id().value());
        EXPECT_NEAR(time.seconds, 0.010, 1e-9);
        EXPECT_EQ(time.calls, 8u);
        break;
      case Stage::kFfn:
        EXPECT_EQ(time.worker, ffn_.empty() ? attention_->id().value() : ffn_[0]);
        EXPECT_NEAR(time.seconds, 0.006, 1e-9);
        EXPECT_EQ(time.calls, 6u);
        break;
    }
  }
  for (EngineNode* node : nodes_) {
    const ledger::LedgerSnapshot books = world_.Report(*node).ledger;
    Duration sum;
    for (const ledger::LedgerCell& cell : books.cells) sum += cell.time;
    EXPECT_EQ(sum, books.elapsed) << node->id().value();
    EXPECT_EQ(books.elapsed, Duration::Milliseconds(22));
  }
}

// Goal: what a worker shows of prefill and token gaps is the time by its device's clock.
TEST_P(EngineTopologies, ReportsTellThePromptsTimeAndTheGapsOfTokens) {
  Build();
  for (EngineNode* node : nodes_) {
    node->backend->SetHook([this](const FakeCall& call) {
      if (call.kind <= FakeCallKind::kHead) world_.time().Advance(Duration::Milliseconds(1));
      return absl::OkStatus();
    });
  }
  ASSERT_EQ(world_.Generate(*attention_, prefill_, world_.Ask("r", Prompt(5, 1), 3)),
            absl::OkStatus());
  world_.gateway().WaitForEnd(Key("r"));
  const auto count = [](const auto& latencies) {
    uint64_t all = 0;
    for (const uint64_t bucket : latencies.buckets) all += bucket;
    return all;
  };
  EngineNode& prefills = prefill_ != nullptr ? *prefill_ : *attention_;
  const RequestLatencies prompts = world_.Report(prefills).counters.prefills;
  EXPECT_EQ(count(prompts), 1u);
  EXPECT_NEAR(prompts.sum_seconds, 0.006, 1e-9);  // embed, 3 attention layers, 2 FFN layers
  const TokenLatencies gaps = world_.Report(*attention_).counters.token_gaps;
  EXPECT_EQ(count(gaps), 2u);                  // of three tokens
  EXPECT_NEAR(gaps.sum_seconds, 0.016, 1e-9);  // each embed, 3 layers, 3 FFN layers, head
  // 8 ms each.
  EXPECT_EQ(gaps.buckets[std::lower_bound(kTokenBuckets, std::end(kTokenBuckets), 0.0080001) -
                         kTokenBuckets],
            2u);
}

// Goal: a sequence waits until its prompt is there, and then it runs.
TEST_P(EngineTopologies, ReportsTellWhatWaitsAndWhatRuns) {
  Build();
  EngineNode& prefills = prefill_ != nullptr ? *prefill_ : *attention_;
  // The second layer: what the first one's task changed is published.
  HoldAt(prefills, FakeCallKind::kAttention, 1, there_, go_);
  ASSERT_EQ(world_.Generate(*attention_, prefill_, world_.Ask("r", Prompt(9, 1), 40)),
            absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  WorkerReport report = prefills.core->Report();
  EXPECT_EQ(report.running, 1u);
  EXPECT_EQ(report.waiting, 0u);
  if (prefill_ != nullptr) {
    report = world_.Report(*attention_);
    EXPECT_EQ(report.running, 0u);
    EXPECT_EQ(report.waiting, 1u);
  }
  Latch decodes, on;
  HoldAt(*attention_, FakeCallKind::kHead, 3, decodes, on);
  go_.Open();
  ASSERT_TRUE(decodes.Wait());
  report = attention_->core->Report();
  EXPECT_EQ(report.running, 1u);
  EXPECT_EQ(report.waiting, 0u);
  on.Open();
  world_.gateway().WaitForEnd(Key("r"));
  ExpectAllEmpty();
}

TEST_P(EngineTopologies, StopAtEveryStageFreesEverything) {
  Build();
  // While a device is at its n-th call of a kind, the client leaves.
  for (const FakeCallKind kind :
       {FakeCallKind::kEmbed, FakeCallKind::kAttention, FakeCallKind::kFfn, FakeCallKind::kHead}) {
    for (const uint64_t nth : {0u, 1u, 3u}) {
      const std::string name = absl::StrCat("r", static_cast<int>(kind), ".", nth);
      auto begun = std::make_shared<Latch>(), left = std::make_shared<Latch>();
      auto seen = std::make_shared<std::atomic<uint64_t>>(0);
      for (EngineNode* node : nodes_) {
        node->backend->SetHook([=](const FakeCall& call) {
          if (call.kind == kind && (*seen)++ == nth) {
            begun->Open();
            left->Wait();
          }
          return absl::OkStatus();
        });
      }
      const step::DecodeRequest request = world_.Ask(name, Prompt(9, 1), 40);
      ASSERT_EQ(world_.Generate(*attention_, prefill_, request), absl::OkStatus());
      ASSERT_TRUE(begun->Wait());
      attention_->core->tokens().Stop(Key(name), 0, EndReason::kCancelled);
      left->Open();
      EXPECT_EQ(attention_->listener.WaitForEnd(Key(name)).reason, EndReason::kCancelled);
      if (prefill_ != nullptr) {
        EXPECT_EQ(world_.Release(*prefill_, name, EndReason::kCancelled), absl::OkStatus());
      }
      ExpectAllEmpty();
    }
  }
}

TEST_P(EngineTopologies, ReleaseByTheRouterEndsTheSequence) {
  Build();
  HoldAt(*attention_, FakeCallKind::kHead, 3, there_, go_);
  ASSERT_EQ(world_.Generate(*attention_, prefill_, world_.Ask("r", Prompt(9, 1), 90)),
            absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  Promise<absl::Status> released;
  attention_->core->commands().Release(ReservationId("r"), {}, EndReason::kCancelled,
                                       [&](absl::Status status) { released.Set(status); });
  go_.Open();
  EXPECT_EQ(released.Wait(), absl::OkStatus());
  EXPECT_EQ(world_.gateway().WaitForEnd(Key("r")).end->reason, EndReason::kCancelled);
  ExpectAllEmpty();
}

INSTANTIATE_TEST_SUITE_P(
    All, EngineTopologies,
    testing::Values(
        Topology{"colocated", {{"C", {Stage::kPrefill, Stage::kAttention, Stage::kFfn}}}},
        Topology{"pd", {{"P", {Stage::kPrefill}}, {"A", {Stage::kAttention, Stage::kFfn}}}},
        Topology{"afd", {{"A", {Stage::kPrefill, Stage::kAttention}}, {"F", {Stage::kFfn}}}},
        Topology{"pd_afd",
                 {{"P", {Stage::kPrefill}}, {"A", {Stage::kAttention}}, {"F", {Stage::kFfn}}}}),
    [](const auto& topology) { return topology.param.name; });

}  // namespace
}  // namespace tandem::test
