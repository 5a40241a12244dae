// Goal: whatever dies, no token is lost, repeated or changed, every sequence ends once, and
// everything held is freed. Method: the production controller and step machines on virtual time,
// each scenario twice with one seed.

#include "tests/sim/sim_fixture.h"

namespace tandem::sim {
namespace {

class ScenarioTest : public testing::TestWithParam<const char*> {};

// What must hold whatever the seed.
void ExpectWhole(const SimReport& report) {
  SCOPED_TRACE(Text(report));
  EXPECT_TRUE(report.violations.empty());
  EXPECT_GT(report.tokens_requested, 0u);
  EXPECT_EQ(report.tokens_delivered, report.tokens_requested);
  EXPECT_EQ(report.kv_blocks_leaked, 0u);
  EXPECT_FALSE(report.ended.contains("failed"));
}

// SIM_SEEDS=n plays n seeds of each scenario; ./dev soak plays many.
uint64_t Seeds() {
  const char* given = std::getenv("SIM_SEEDS");
  return given == nullptr ? 12 : std::strtoull(given, nullptr, 10);
}

TEST_P(ScenarioTest, HoldsForManySeeds) {
  for (uint64_t seed = 1; seed <= Seeds() && !HasFailure(); ++seed) {
    SCOPED_TRACE(absl::StrCat("replay with SIM_SEED=", seed, " and SIM_TRACE=1"));
    ExpectWhole(Play(GetParam(), seed));
  }
}

TEST_P(ScenarioTest, DeliversEveryTokenOnceAndFreesEverything) {
  const uint64_t seed = SeedOr(20261124);
  SCOPED_TRACE(absl::StrCat("replay with SIM_SEED=", seed, " and SIM_TRACE=1"));
  const SimReport first = Play(GetParam(), seed);
  ExpectWhole(first);
  const SimReport second = Play(GetParam(), seed);
  EXPECT_EQ(first.event_digest, second.event_digest);
  EXPECT_NE(first.event_digest, Play(GetParam(), seed + 1).event_digest)
      << "the seed decides nothing";
}

INSTANTIATE_TEST_SUITE_P(Files, ScenarioTest,
                         testing::Values("colocated", "pd", "afd", "pd_afd", "ffn_worker_loss",
                                         "ffn_pool_loss", "ffn_pool_gone", "attention_worker_loss",
                                         "prefill_worker_loss", "router_restart", "gateway_loss",
                                         "overload", "kv_pressure", "clients_leave", "slow_worker",
                                         "drain", "chaos", "layer_shards", "layer_shard_loss",
                                         "column_shards", "column_shard_loss", "column_crossing",
                                         "mixed_cuts_chaos"),
                         [](const auto& info) { return std::string(info.param); });

// Other cuts are other numerics classes: calls go there when nobody else is left, and are counted.

uint64_t Crossings(const char* name) {
  uint64_t crossings = 0;
  for (uint64_t seed = 1; seed <= 5; ++seed) crossings += Play(name, seed).class_crossings;
  return crossings;
}

TEST(ShardScenarios, ReplicasAndLayersCrossNoClass) {
  EXPECT_EQ(Crossings("layer_shard_loss"), 0u);
  EXPECT_EQ(Crossings("column_shard_loss"), 0u);
}

TEST(ShardScenarios, ALostColumnWithAWholeHolderLeftIsACountedCrossing) {
  EXPECT_GT(Crossings("column_crossing"), 0u);
}

// Two attention workers that start together over two layer shards step out of phase: each goes
// nearly as fast as one alone, and the shards work twice as much. Without it: 1.3 times as long.
TEST(ShardScenarios, AttentionWorkersStepOutOfPhaseAtLayerShards) {
  const Scenario two = NamedScenario("layer_shards_steady");
  Scenario one = two;
  std::erase_if(one.workers, [](const WorkerSpec& worker) { return worker.name == "a2"; });
  one.load.requests /= 2;
  for (uint64_t seed = 1; seed <= 3; ++seed) {
    const SimReport alone = Simulate(one, seed), both = Simulate(two, seed);
    SCOPED_TRACE(absl::StrCat("seed ", seed, "\n", Text(alone), Text(both)));
    EXPECT_LE(both.tpot_p50.seconds(), 1.10 * alone.tpot_p50.seconds());
    const auto occupancy = [](const SimReport& report) {
      return report.device_time.at("ffn busy").seconds() / report.elapsed.seconds();
    };
    EXPECT_GE(occupancy(both), 1.75 * occupancy(alone));
  }
}

TEST(ShardScenarios, ALayerWithoutAHolderForLongerThanMaxFfnWaitIsUnavailableAndResumed) {
  EXPECT_GT(Play("layer_shard_loss", 1).resumes, 0u);
}

}  // namespace
}  // namespace tandem::sim
