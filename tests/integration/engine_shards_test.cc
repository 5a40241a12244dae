// Goal: an FFN cut by layers or by columns over several workers gives the same tokens, whoever
// dies; and a merge wait shows in the accounts of both sides and nowhere else. Method: production
// engines over loopback connectors, on a clock that the test moves.

#include <gtest/gtest.h>

#include "tests/fakes/engine_world.h"

namespace tandem::test {
namespace {

using ledger::Cause;
using ledger::LedgerState;

const std::vector<TokenId> kPrompt{5, 6, 7, 8, 9, 10, 11};

Duration StallOf(const EngineNode& node, Cause cause) {
  Duration sum;
  for (const ledger::LedgerCell& cell : node.core->Report().ledger.cells) {
    if (cell.state == LedgerState::kStall && cell.cause == cause) sum += cell.time;
  }
  return sum;
}

class EngineShards : public testing::Test {
 protected:
  EngineNode& AddShard(const std::string& name, const FfnShard& shard) {
    return world_.Add(name, {Stage::kFfn},
                      [&](EngineConfig&, FakeOptions& options) { options.shard = shard; });
  }
  void Start(const std::vector<std::string>& group) {
    world_.Start();
    ASSERT_EQ(world_.SetGroup(*a_, group), absl::OkStatus());
    for (const std::string& holder : group) world_.Sync(world_.Node(holder));
    world_.Sync(*a_);
  }
  void Decode(const std::string& name) {
    const step::DecodeRequest request = world_.Ask(name, kPrompt, 8);
    ASSERT_EQ(world_.Generate(*a_, nullptr, request), absl::OkStatus());
    world_.ExpectExact(request);
  }
  EngineCounters Counters() { return world_.Report(*a_).counters; }

  Latch there_, go_;  // before the world: hooks hold them
  EngineWorld world_;
  EngineNode* a_ = &world_.Add("A", {Stage::kPrefill, Stage::kAttention});
};

TEST_F(EngineShards, LayersOverTwoWorkers) {
  EngineNode& low = AddShard("L0", {0, 2});
  EngineNode& high = AddShard("L1", {2, 3});
  Start({"L0", "L1"});
  Decode("r");
  EXPECT_EQ(world_.Report(low).counters.ffn_calls, 16u) << "two layers of eight steps";
  EXPECT_EQ(world_.Report(high).counters.ffn_calls, 8u);
}

TEST_F(EngineShards, ColumnsOverThreeWorkers) {
  for (uint32_t column = 0; column < 3; column++)
    AddShard(absl::StrCat("C", column), {0, 3, column, 3});
  Start({"C2", "C0", "C1"});
  Decode("r");
  EXPECT_EQ(Counters().class_crossings, 0u);
}

TEST_F(EngineShards, AColumnsReplicaTakesItsPieceAndTheOtherIsKept) {
  EngineNode& lost = AddShard("C0", {0, 3, 0, 2});
  AddShard("C0b", {0, 3, 0, 2});
  AddShard("C1", {0, 3, 1, 2});
  Start({"C0", "C0b", "C1"});
  HoldAt(lost, FakeCallKind::kFfn, 7, there_, go_);
  const step::DecodeRequest request = world_.Ask("r", kPrompt, 8);
  ASSERT_EQ(world_.Generate(*a_, nullptr, request), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  world_.activation().Kill(lost.id());
  world_.ExpectExact(request);
  go_.Open();
  EXPECT_EQ(Counters().calls_resent, 1u);
  EXPECT_EQ(Counters().class_crossings, 0u);
}

TEST_F(EngineShards, WithOnlyAWholeHolderLeftTheLayerIsRedoneThereAndCounted) {
  EngineNode& lost = AddShard("C0", {0, 3, 0, 2});
  AddShard("C1", {0, 3, 1, 2});
  AddShard("W", {});
  Start({"C0", "C1", "W"});
  HoldAt(lost, FakeCallKind::kFfn, 7, there_, go_);
  const step::DecodeRequest request = world_.Ask("r", kPrompt, 8);
  ASSERT_EQ(world_.Generate(*a_, nullptr, request), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  world_.activation().Kill(lost.id());
  world_.ExpectExact(request);
  go_.Open();
  EXPECT_EQ(Counters().class_crossings, 3u) << "each layer of the model, once";
}

TEST_F(EngineShards, AHolderOfAnotherShardThanTheGroupSaysIsRefused) {
  AddShard("L0", {0, 2});
  world_.Start();
  std::vector<FfnEndpoint> group = {{WorkerId("L0"), "loopback", 1, {0, 3}}};
  a_->core->commands().SetGroup(1, 50, std::move(group), [](const absl::Status&) {});
  world_.Sync(*a_);  // it has asked
  world_.Sync(world_.Node("L0"));
  world_.Sync(*a_);
  EXPECT_EQ(a_->listener.shards_lost("L0"), 1u);
}

// One step of two attention workers: the second stands at layer 1, so the first one's call for it
// waits at F, and nobody comes.
TEST_F(EngineShards, AMergeWaitIsBatchWaitAtFAndPeerQueueAtA) {
  EngineNode& b = world_.Add("B", {Stage::kPrefill, Stage::kAttention});
  EngineNode& f = world_.Add("F", {Stage::kFfn}, [](EngineConfig& config, FakeOptions&) {
    config.max_merge_wait = Duration::Milliseconds(5);
  });
  Start({"F"});
  ASSERT_EQ(world_.SetGroup(b, {"F"}), absl::OkStatus());
  world_.Sync(f);
  world_.Sync(b);
  HoldAt(b, FakeCallKind::kAttention, 1, there_, go_);  // after its layer 0 was answered
  ASSERT_EQ(world_.Generate(b, nullptr, world_.Ask("b", {7}, 1)), absl::OkStatus());
  ASSERT_TRUE(there_.Wait());
  ASSERT_EQ(world_.Generate(*a_, nullptr, world_.Ask("a", {9}, 1)), absl::OkStatus());
  world_.WaitForQueuedRows(f, /*computed_calls=*/2, /*rows=*/1);  // layer 0 of each; a's layer 1
  world_.Sync(*a_);                                               // it has noted that it waits
  world_.time().Advance(Duration::Milliseconds(5));
  world_.gateway().WaitForEnd(Key("a"));
  world_.Sync(f);
  world_.Sync(*a_);
  EXPECT_EQ(StallOf(f, Cause::kBatchWait), Duration::Milliseconds(5));
  EXPECT_EQ(StallOf(*a_, Cause::kPeerQueue), Duration::Milliseconds(5));
  for (const Cause other : {Cause::kHandoff, Cause::kPeerCompute, Cause::kKvTransfer}) {
    EXPECT_EQ(StallOf(f, other), Duration());
    EXPECT_EQ(StallOf(*a_, other), Duration());
  }
  go_.Open();
}

}  // namespace
}  // namespace tandem::test
