// Emulated devices on a clock that the test moves: what a call takes, when a transfer is there,
// what fits, and the promises of every backend.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>

#include "services/runtime/catalog_files.h"
#include "tests/exact/backend_conformance.h"
#include "tests/fakes/manual_time.h"
#include "workers/backend/emulated/emulated_backend.h"
#include "workers/backend/synthetic/synthetic_backend.h"

namespace tandem {
namespace {

using ::testing::HasSubstr;

const model::Catalog& OurCatalog() {
  static const model::Catalog* const catalog = [] {
    const std::string root = std::string(std::getenv("TANDEM_SOURCE_DIR"));
    absl::StatusOr<model::Catalog> read = LoadCatalog({root + "/scheduler/model/catalog"});
    EXPECT_TRUE(read.ok()) << read.status();
    return new model::Catalog(*std::move(read));
  }();
  return *catalog;
}

cost::CostTable Table(const std::string& device, const std::string& shape,
                      model::Dtype weights = model::Dtype::kFp8) {
  cost::CostOptions options;
  options.precision.weights = weights;
  auto table = cost::CostTable::Create(*OurCatalog().FindDevice(device),
                                       *OurCatalog().FindModel(shape), options);
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

std::unique_ptr<StageBackend> Numerics(const model::ModelShape& shape,
                                       const std::set<Stage>& stages, uint32_t kv_blocks,
                                       uint32_t block_tokens = 16) {
  SyntheticOptions options;
  options.stages = stages;
  options.dimensions = {static_cast<uint32_t>(shape.layers), 4, 1, 1, 1000, 4096};
  options.kv_blocks = kv_blocks;
  options.block_tokens = block_tokens;
  return std::make_unique<SyntheticBackend>(options);
}

TEST(EmulatedTimeline, WorkStartsWhereTheLineStandsAndTheHostsDelayIsLagNotWork) {
  test::ManualTime time;
  time.Advance(Duration::Seconds(1));
  EmulatedTimeline line(time, [&](Instant when) { time.Advance(when - time.Now()); }, 10, {1e9, 0});
  const Instant start = time.Now();
  line.WaitFor(line.Run(Duration::Milliseconds(2)));
  EXPECT_EQ(line.Now() - start, Duration::Milliseconds(20));
  EXPECT_EQ(time.Now(), line.Now());
  EXPECT_EQ(line.lag().now, Duration());
  // The host takes 5 ms before it asks for the next: the device did not.
  time.Advance(Duration::Milliseconds(5));
  line.WaitFor(line.Run(Duration::Milliseconds(2)));
  EXPECT_EQ(line.Now() - start, Duration::Milliseconds(40));
  EXPECT_EQ(line.lag().now, Duration());
  // It takes longer than the work itself.
  time.Advance(Duration::Milliseconds(27));
  line.WaitFor(line.Run(Duration::Milliseconds(2)));
  EXPECT_EQ(line.Now() - start, Duration::Milliseconds(60));
  EXPECT_EQ(line.lag().now, Duration::Milliseconds(7));
  EXPECT_EQ(line.lag().longest, Duration::Milliseconds(7));
  EXPECT_GT(line.lag().ratio, 0);
}

TEST(EmulatedTimeline, ArrivalsMoveTheLineOnNeverBack) {
  test::ManualTime time;
  EmulatedTimeline line(time, [](Instant) {}, 1, {1e9, 0});
  line.Arrived(Instant() + Duration::Milliseconds(3));
  EXPECT_EQ(line.Now(), Instant() + Duration::Milliseconds(3));
  line.Arrived(Instant() + Duration::Milliseconds(2));
  EXPECT_EQ(line.Now(), Instant() + Duration::Milliseconds(3));
  time.Advance(Duration::Milliseconds(9));
  EXPECT_EQ(line.Now(), Instant() + Duration::Milliseconds(3));
  line.Woken(time.Now());
  EXPECT_EQ(line.Now(), Instant() + Duration::Milliseconds(9));
}

TEST(EmulatedTimeline, AStampIsBelievedWithinBoundsOnly) {
  test::ManualTime time;
  time.Advance(Duration::Seconds(5));
  const EmulatedTimeline line(time, [](Instant) {}, 1, {1e9, 0});
  const Instant soon = time.Now() + Duration::Milliseconds(3);
  EXPECT_EQ(line.Due(soon), soon);
  EXPECT_EQ(line.Due(Instant::Never()), time.Now() + Duration::Seconds(600));
  EXPECT_EQ(line.Due(Instant::FromNanoseconds(INT64_MIN)), Instant()) << "at once";
  EXPECT_EQ(MachineTimeline(time).Due(soon), Instant()) << "a real device takes what comes";
}

TEST(EmulatedTimeline, TransfersFollowEachOtherAtTheSpeedOfTheSlowerEnd) {
  test::ManualTime time;
  EmulatedTimeline line(time, [](Instant) {}, 10, {1e9, 1e-6});
  // 1 MB at 1 GB/s: 1 ms, and 1 us on its way; ten times as long on the machine.
  EXPECT_EQ(line.Send(1'000'000, {}) - Instant(), Duration::Microseconds(10'010));
  EXPECT_EQ(line.Send(1'000'000, {}) - Instant(), Duration::Microseconds(20'010));
  // A peer with half the speed and a longer way.
  EXPECT_EQ(line.Send(1'000'000, {5e8, 3e-6}) - Instant(), Duration::Microseconds(40'030));
}

class EmulatedDevice : public ::testing::Test {
 protected:
  std::unique_ptr<EmulatedBackend> Make(const cost::CostTable& table, std::set<Stage> stages,
                                        double time_scale = 1) {
    EmulatedOptions options;
    options.stages = stages;
    options.kv_tokens = stages == std::set<Stage>{Stage::kFfn} ? 0 : 4096;
    options.time_scale = time_scale;
    auto backend = EmulatedBackend::Create(
        options, table, Numerics(table.shape(), stages, options.kv_tokens / 16), time_,
        [this](Instant when) { time_.Advance(when - time_.Now()); });
    EXPECT_TRUE(backend.ok()) << backend.status();
    return *std::move(backend);
  }
  // What the call took on the machine.
  Duration TimeOf(TicketPtr ticket) {
    const Instant before = time_.Now();
    EXPECT_TRUE(ticket->Wait().ok());
    return time_.Now() - before;
  }
  test::ManualTime time_;
};

TEST_F(EmulatedDevice, EachCallTakesWhatTheCostTableSays) {
  const cost::CostTable table = Table("h100-x8", "llama-3-70b");
  const auto backend = Make(table, {Stage::kPrefill, Stage::kAttention, Stage::kFfn});
  const BufferRef rows = *backend->AllocateRows(2), out = *backend->AllocateRows(2);
  const step::BlockTable one = {0, 1}, two = {2, 3};
  const std::vector<step::KvRow> batch = {{5, 10, &one}, {6, 20, &two}};
  EXPECT_EQ(TimeOf(backend->Embed({5, 6}, *rows)), table.Embed(2));
  EXPECT_EQ(TimeOf(backend->AttentionLayer(0, batch, *rows, nullptr)),
            table.AttentionLayer(
                0, cost::AttentionRows::Of(table.shape(), {uint32_t{11}, uint32_t{21}})));
  EXPECT_EQ(TimeOf(backend->FfnLayer(0, 2, *rows, *out)), table.FfnLayer({}, 0, 2));
  Sampling greedy;
  greedy.temperature = 0;
  const std::vector<TokenId> none;
  std::vector<step::SampledToken> tokens;
  const std::vector<step::SampleRow> samples(2, {&greedy, 0, 0, &none, &none});
  EXPECT_EQ(TimeOf(backend->HeadAndSample(samples, *rows, out.get(), tokens)), table.Head(2));
}

TEST_F(EmulatedDevice, TimeScaleStretchesEveryCall) {
  const cost::CostTable table = Table("groq3-lpx-rack", "llama-3-70b");
  const auto backend = Make(table, {Stage::kFfn}, 40);
  const BufferRef rows = *backend->AllocateRows(8), out = *backend->AllocateRows(8);
  EXPECT_EQ(TimeOf(backend->FfnLayer(3, 8, *rows, *out)), table.FfnLayer({}, 3, 8) * 40);
}

TEST_F(EmulatedDevice, AChunkOfAPromptIsChargedByWholeLayers) {
  const cost::CostTable table = Table("h100-x8", "llama-3-70b");
  const auto backend = Make(table, {Stage::kPrefill});
  const BufferRef rows = *backend->AllocateRows(4), out = *backend->AllocateRows(4);
  const step::BlockTable blocks = {0, 1};
  std::vector<step::KvRow> chunk;
  for (uint32_t i = 0; i < 4; i++) chunk.push_back({i, 3 + i, &blocks});
  EXPECT_EQ(TimeOf(backend->AttentionLayer(1, chunk, *rows, nullptr)), table.PrefillLayer(1, 3, 4));
  EXPECT_EQ(TimeOf(backend->FfnLayer(1, 4, *rows, *out)), Duration());
  EXPECT_EQ(TimeOf(backend->FfnLayer(1, 4, *rows, *out)), table.FfnLayer({}, 1, 4))
      << "charged once only";
}

TEST_F(EmulatedDevice, WhatDoesNotFitIsRefusedWithBothNumbers) {
  const cost::CostTable table = Table("h100-sxm", "llama-3-70b");
  EmulatedOptions options;
  options.stages = {Stage::kPrefill, Stage::kAttention, Stage::kFfn};
  options.kv_tokens = 1 << 20;
  const auto backend = EmulatedBackend::Create(
      options, table, Numerics(table.shape(), options.stages, 1), time_, [](Instant) {});
  ASSERT_EQ(backend.status().code(), absl::StatusCode::kInvalidArgument);
  // 70.6 GB of weights and 343.6 GB of KV do not go into 80.
  EXPECT_THAT(std::string(backend.status().message()), HasSubstr("h100-sxm"));
  EXPECT_THAT(std::string(backend.status().message()), HasSubstr("GB"));
}

TEST_F(EmulatedDevice, NumericsOfAnotherDepthAreRefusedWithBothNumbers) {
  const cost::CostTable table = Table("h100-x8", "llama-3-70b");
  EmulatedOptions options;
  options.stages = {Stage::kFfn};
  const auto backend = EmulatedBackend::Create(
      options, table, Numerics(*OurCatalog().FindModel("llama-3-8b"), options.stages, 0), time_,
      [](Instant) {});
  EXPECT_EQ(backend.status().message(), "numerics of 32 layers for llama-3-70b, which has 80");
}

}  // namespace
}  // namespace tandem

namespace tandem::exact {

INSTANTIATE_TEST_SUITE_P(Emulated, BackendConformance,
                         testing::Values(BackendCase{
                             "h100",
                             [](std::set<Stage> stages, uint32_t kv_blocks,
                                uint32_t block_tokens) -> std::unique_ptr<StageBackend> {
                               static test::ManualTime time;
                               const cost::CostTable table = Table("h100-sxm", "smollm2-135m");
                               EmulatedOptions options;
                               options.stages = stages;
                               auto backend = EmulatedBackend::Create(
                                   options, table,
                                   Numerics(table.shape(), stages, kv_blocks, block_tokens), time,
                                   [](Instant when) { time.Advance(when - time.Now()); });
                               return backend.ok() ? *std::move(backend) : nullptr;
                             }}),
                         [](const auto& info) { return info.param.name; });

}  // namespace tandem::exact
