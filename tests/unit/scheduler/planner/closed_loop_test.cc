// Goal: the closed loop measures what its clients would. Method: a unit device (a byte or flop a
// second) with a model of a few weights, where steps can be counted by hand.

#include "scheduler/planner/closed_loop.h"

#include <absl/strings/match.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/cost/shapes.h"

namespace tandem::planner {
namespace {

using cost::CostTable;

// Steps of no length but a second a layer of a decode step and ten a layer of a prompt's chunk.
CostTable Table(const cost::EngineConstants& engine, double memory_bytes = 1e9) {
  model::Device device = cost::UnitDevice();
  model::DtypeFigures& figures = device.chip.dtypes[model::Dtype::kBf16];
  device.chip.bandwidth_bytes_per_s = figures.peak_flops = cost::Known(1e18);
  device.chip.memory_bytes = cost::Known(memory_bytes);
  figures.layer_seconds = cost::Known(1);
  figures.prefill_layer_seconds = cost::Known(10);
  cost::CostOptions options;
  options.engine = engine;
  auto table = CostTable::Create(device, cost::TinyShape(), options);
  EXPECT_TRUE(table.ok()) << table.status();
  return *table;
}

cost::EngineConstants Engine() {
  cost::EngineConstants engine;
  engine.prefill_share = 1;
  engine.step_tokens = 100;
  return engine;
}

ClosedLoopReport Play(const CostTable& table, const ClosedLoopLoad& load) {
  const auto report = SimulateClosedLoop(table, load);
  EXPECT_TRUE(report.ok()) << report.status();
  return report.value_or(ClosedLoopReport());
}

constexpr double kDecode = 2, kPrompt = 20;  // seconds a step, of two layers

TEST(ClosedLoop, OneClientSeesItsPromptAndItsSteps) {
  const ClosedLoopReport report =
      Play(Table(Engine()), {.clients = 1, .requests = 3, .request = {50, 11}});
  EXPECT_NEAR(report.ttft_mean.seconds(), kPrompt, 1e-6);
  EXPECT_NEAR(report.tpot_mean.seconds(), kDecode, 1e-6);
  EXPECT_NEAR(report.output_tokens_per_s, 11 / (kPrompt + 10 * kDecode), 1e-6);
  EXPECT_EQ(report.waiting_most, 1);
}

// Ten prompts of 50 rows in steps of 100: two a step, so the last waits for five steps.
TEST(ClosedLoop, TheFirstRequestsOfAllClientsArriveAtOnce) {
  const ClosedLoopReport report =
      Play(Table(Engine()), {.clients = 10, .requests = 10, .request = {50, 1}});
  EXPECT_NEAR(report.ttft_mean.seconds(), kPrompt * 3, 1e-6);  // the mean of 1 to 5
  EXPECT_NEAR(report.ttft_median.seconds(), kPrompt * 3, 1e-6);
  EXPECT_EQ(report.tpot_mean, Duration());  // nobody has a second token
}

TEST(ClosedLoop, APromptLongerThanAStepIsComputedInChunks) {
  const ClosedLoopReport report =
      Play(Table(Engine()), {.clients = 1, .requests = 1, .request = {250, 1}});
  EXPECT_NEAR(report.ttft_mean.seconds(), kPrompt * 3, 1e-6);
}

// Two clients out of phase: each one's prompt holds up the other's step, by the engine's share.
TEST(ClosedLoop, PromptsHoldUpWhoIsDecoding) {
  const ClosedLoopLoad load = {.clients = 2, .requests = 40, .request = {90, 20}, .shortest = 0.5};
  cost::EngineConstants half = Engine();
  half.prefill_share = 0.5;
  const double whole_tpot = Play(Table(Engine()), load).tpot_mean.seconds();
  const double half_tpot = Play(Table(half), load).tpot_mean.seconds();
  EXPECT_GT(half_tpot, kDecode);
  EXPECT_GT(whole_tpot, half_tpot + 0.3);
}

// Room for two requests of the four: the others wait until one ends.
TEST(ClosedLoop, RequestsWaitForKv) {
  const auto& shape = cost::TinyShape();
  const uint64_t one = cost::KvBytes(shape, {}, 50 + 10);
  const double weights =
      static_cast<double>(cost::WeightBytes(shape, {}, cost::Holding::Everything()));
  const CostTable table = Table(Engine(), weights + 2.5 * static_cast<double>(one));
  const ClosedLoopReport report = Play(table, {.clients = 4, .requests = 4, .request = {50, 10}});
  // Two at once; the next two when those end, after nine steps.
  EXPECT_NEAR(report.ttft_mean.seconds(), (2 * kPrompt + 2 * (2 * kPrompt + 9 * kDecode)) / 4,
              1e-6);
  EXPECT_EQ(report.waiting_most, 4);
  EXPECT_LE(report.running_mean, 2);
}

TEST(ClosedLoop, ALimitOfSequencesHoldsRequestsBack) {
  const ClosedLoopReport report =
      Play(Table(Engine()), {.clients = 4, .requests = 4, .request = {50, 10}, .max_sequences = 2});
  EXPECT_NEAR(report.ttft_mean.seconds(), (2 * kPrompt + 2 * (2 * kPrompt + 9 * kDecode)) / 4,
              1e-6);
}

TEST(ClosedLoop, ARequestsOwnTimeComesBeforeItsPrompt) {
  cost::EngineConstants engine = Engine();
  engine.per_request = Duration::Seconds(5);
  engine.per_open_request = Duration::Seconds(3);
  const ClosedLoopReport one =
      Play(Table(engine), {.clients = 1, .requests = 2, .request = {50, 4}});
  EXPECT_NEAR(one.ttft_mean.seconds(), 5 + kPrompt, 1e-6);
  // The second of two comes 3 s later, and its prompt waits for the first one's.
  const ClosedLoopReport two =
      Play(Table(engine), {.clients = 2, .requests = 2, .request = {50, 1}});
  EXPECT_NEAR(two.ttft_mean.seconds(), (5 + kPrompt + 5 + 2 * kPrompt) / 2, 1e-6);
}

TEST(ClosedLoop, OneSeedGivesOneReport) {
  const ClosedLoopLoad load = {.clients = 7, .requests = 70, .request = {90, 40}, .shortest = 0.8};
  const ClosedLoopReport first = Play(Table(Engine()), load), second = Play(Table(Engine()), load);
  EXPECT_EQ(first.ttft_mean, second.ttft_mean);
  EXPECT_EQ(first.tpot_mean, second.tpot_mean);
  ClosedLoopLoad other = load;
  other.seed = 2;
  EXPECT_NE(first.ttft_mean, Play(Table(Engine()), other).ttft_mean);
}

TEST(ClosedLoop, RefusesLoadsThatAreNone) {
  const auto refused = [](const ClosedLoopLoad& load, absl::string_view words) {
    const auto report = SimulateClosedLoop(Table(Engine()), load);
    EXPECT_EQ(report.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_TRUE(absl::StrContains(report.status().message(), words)) << report.status();
  };
  refused({.clients = 0, .requests = 1, .request = {1, 1}}, "0 clients");
  refused({.clients = 2, .requests = 1, .request = {1, 1}}, "2 clients and 1 requests");
  refused({.clients = 1, .requests = 2'000'000, .request = {1, 1}}, "at most 1000000");
  refused({.clients = 1, .requests = 1, .request = {0, 1}}, "0 + 1 tokens");
  refused({.clients = 1, .requests = 1, .request = {1, 1}, .shortest = 0}, "the shortest 0");
  const auto full = SimulateClosedLoop(Table(Engine(), 1000),
                                       {.clients = 1, .requests = 1, .request = {5000, 1}});
  EXPECT_EQ(full.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(absl::StrContains(full.status().message(), "exceed")) << full.status();
}

}  // namespace
}  // namespace tandem::planner
