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
                                         "mixed_cuts_chaos", "closed_loop"),
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

// Closed-loop clients, and devices that share a host.

// Everything takes twice as long.
std::shared_ptr<const cost::CostTable> Slower(const cost::CostTable& costs) {
  model::Device device = costs.device();
  device.chip.bandwidth_bytes_per_s.value /= 2;
  for (auto& [dtype, figures] : device.chip.dtypes) {
    figures.peak_flops.value /= 2;
    figures.layer_seconds.value *= 2;
    figures.prefill_layer_seconds.value *= 2;
  }
  cost::CostOptions options;
  options.precision = costs.precision();
  auto table = cost::CostTable::Create(device, costs.shape(), options);
  EXPECT_TRUE(table.ok()) << table.status();
  return std::make_shared<const cost::CostTable>(*std::move(table));
}

Scenario Clients(uint32_t clients) {
  Scenario scenario = NamedScenario("closed_loop");
  scenario.load.clients = clients;
  scenario.control_link = {};
  return scenario;
}

// Goal: the simulator adds nothing to the cost model's step where one client has the cluster alone.
TEST(ClosedLoop, AloneAClientGetsTheCostModelsTimes) {
  const Scenario scenario = Clients(1);
  const cost::CostTable& costs = *scenario.workers[0].costs;
  const auto rows = [&](uint64_t context) {
    return cost::AttentionRows::Even(scenario.shape, 1, context);
  };
  const auto precision = costs.precision();
  const Duration hand_offs =
      (costs.link().Transfer(cost::A2fBytes(scenario.shape, precision, 0, 1)) +
       costs.link().Transfer(cost::F2aBytes(scenario.shape, precision, 1))) *
      static_cast<int64_t>(scenario.shape.layers);
  const SimReport report = Simulate(scenario, 1);
  const double step = (costs.DecodeStep(rows(53)) + hand_offs).seconds();
  EXPECT_NEAR(report.tpot_p50.seconds() / step, 1, 0.005);
  const double first = (costs.Prefill(0, 32) + costs.DecodeStep(rows(33)) + hand_offs).seconds();
  EXPECT_NEAR(report.ttft_p50.seconds() / first, 1, 0.02);
  // One after the other: 39 whole requests, and one token before them.
  EXPECT_NEAR(report.elapsed.seconds() / (first + 39 * (first + 39 * step)), 1, 0.005);
}

// Each client waits for its own request: no more than `clients` are ever in a step.
TEST(ClosedLoop, MoreClientsMakeLongerStepsAndLessThanProportionally) {
  double before = 0;
  for (const uint32_t clients : {1u, 4u, 10u}) {
    const SimReport report = Simulate(Clients(clients), 1);
    EXPECT_TRUE(report.violations.empty()) << Text(report);
    EXPECT_EQ(report.ended.at("length"), 40u);
    EXPECT_GT(report.tpot_p50.seconds(), before);
    if (before > 0) {
      EXPECT_LT(report.tpot_p50.seconds(), 5 * before);
    }
    before = report.tpot_p50.seconds();
  }
}

TEST(ClosedLoop, TheFirstRequestOfEachClientIsOfAnotherLength) {
  EXPECT_EQ(FirstOutput(0, 4, 32), 1u);
  EXPECT_EQ(FirstOutput(3, 4, 32), 24u);
  EXPECT_EQ(FirstOutput(0, 1, 32), 1u);
}

TEST(SharedHost, ANeighboursComputingSlowsWhatOverlaps) {
  Scenario alone = Clients(1), many = Clients(8);
  for (Scenario* scenario : {&alone, &many}) {
    for (WorkerSpec& worker : scenario->workers) worker.micro_batches = 2;
  }
  Scenario alone_beside = alone, many_beside = many;
  for (Scenario* scenario : {&alone_beside, &many_beside}) {
    for (WorkerSpec& worker : scenario->workers) worker.beside = Slower(*worker.costs);
  }
  // One row is with one worker at a time: nothing overlaps.
  EXPECT_EQ(Simulate(alone_beside, 1).tpot_p50, Simulate(alone, 1).tpot_p50);
  const double slowed =
      Simulate(many_beside, 1).tpot_p50.seconds() / Simulate(many, 1).tpot_p50.seconds();
  EXPECT_GT(slowed, 1.2);
  EXPECT_LT(slowed, 2);
}

TEST(SharedHost, OneCoreForTwoDevicesGivesNothingForTheSplit) {
  Scenario own = Clients(8);
  for (WorkerSpec& worker : own.workers) worker.micro_batches = 2;
  Scenario shared = own, wide = own;
  shared.host_cores = 1;
  wide.host_cores = 2;
  EXPECT_EQ(Simulate(wide, 1).tpot_p50, Simulate(own, 1).tpot_p50);
  EXPECT_GT(Simulate(shared, 1).tpot_p50.seconds(), 1.2 * Simulate(own, 1).tpot_p50.seconds());
}

}  // namespace
}  // namespace tandem::sim
