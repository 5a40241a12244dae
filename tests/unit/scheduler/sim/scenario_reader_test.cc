// Scenario files: what is read, and that each mistake is named with its file and key.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>

#include "scheduler/sim/scenario.h"
#include "tests/unit/scheduler/model/catalog_texts.h"

namespace tandem::sim {
namespace {

using testing::HasSubstr;

constexpr absl::string_view kScenario = R"(
name: small
model: small
layers: 3
weights: bf16
workers:
  - {name: a, count: 2, stages: prefill+attention, device: tiny, kv_blocks: 9}
  - {name: f, stages: ffn, device: tiny-x4}
load:
  - {requests: 5, prompt_min: 2, prompt_max: 4, output_min: 1, output_max: 6}
faults:
  - {at_us: 1500, kind: worker_down, target: f, for_ms: 20}
)";

absl::StatusOr<Scenario> Read(absl::string_view yaml) {
  model::Catalog catalog;
  EXPECT_TRUE(catalog.AddChip(model::kChipText, "tiny.yaml").ok());
  EXPECT_TRUE(catalog.AddDevice(model::kDeviceText, "tiny-x4.yaml").ok());
  EXPECT_TRUE(catalog.AddModel(model::kModelText, "small.yaml").ok());
  return ReadScenario(yaml, "small.yaml", catalog);
}

absl::Status ReadWith(absl::string_view from, absl::string_view to) {
  const std::string changed = absl::StrReplaceAll(kScenario, {{from, to}});
  EXPECT_NE(changed, kScenario) << from;
  return Read(changed).status();
}

TEST(ReadScenario, ReadsWorkersLoadAndFaults) {
  const absl::StatusOr<Scenario> read = Read(kScenario);
  ASSERT_TRUE(read.ok()) << read.status();
  ASSERT_EQ(read->workers.size(), 3u);
  EXPECT_EQ(read->workers[0].name, "a1");
  EXPECT_EQ(read->workers[1].stages, (std::set<Stage>{Stage::kPrefill, Stage::kAttention}));
  EXPECT_EQ(read->workers[1].kv_blocks, 9u);
  EXPECT_EQ(read->workers[2].name, "f");
  EXPECT_EQ(read->workers[0].costs->device().name, "tiny");
  EXPECT_EQ(read->workers[2].costs->device().name, "tiny-x4");
  EXPECT_EQ(read->workers[2].costs->shape().layers, 3u);
  EXPECT_EQ(read->shape.layers, 3u);
  EXPECT_EQ(read->load.requests, 5u);
  EXPECT_EQ(read->load.prompt_max, 4u);
  ASSERT_EQ(read->faults.size(), 1u);
  EXPECT_EQ(read->faults[0].at, Instant() + Duration::Microseconds(1500));
  EXPECT_EQ(read->faults[0].lasts, Duration::Milliseconds(20));
}

TEST(ReadScenario, ReadsClientsAndASharedHost) {
  const std::string shared =
      absl::StrReplaceAll(kScenario, {{"requests: 5", "requests: 9, clients: 3"},
                                      {"device: tiny-x4", "device: tiny-x4, beside: tiny"},
                                      {"layers: 3", "layers: 3\nhost_cores: 2"}});
  const absl::StatusOr<Scenario> read = Read(shared);
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->load.clients, 3u);
  EXPECT_EQ(read->host_cores, 2u);
  EXPECT_EQ(read->workers[0].beside, nullptr);
  EXPECT_EQ(read->workers[2].beside->device().name, "tiny");
}

TEST(ReadScenario, NamesWhatIsWrong) {
  EXPECT_THAT(
      ReadWith("requests: 5", "requests: 5, clients: 3").message(),
      HasSubstr("5 requests at 1 gateways are not the same 3 or more for each of 3 clients"));
  EXPECT_THAT(ReadWith("requests: 5", "requests: 6, clients: 3").message(), HasSubstr("clients"));
  EXPECT_THAT(ReadWith("device: tiny-x4", "device: tiny-x4, beside: tape").message(),
              HasSubstr("'tape'"));
  EXPECT_THAT(ReadWith("model: small", "model: huge").message(), HasSubstr("'huge'"));
  EXPECT_THAT(ReadWith("device: tiny-x4", "device: tape").message(), HasSubstr("'tape'"));
  EXPECT_THAT(ReadWith("bf16", "fp8").message(), HasSubstr("no figures for fp8"));
  EXPECT_THAT(ReadWith("bf16", "fp7").message(), HasSubstr("'fp7' is none of"));
  EXPECT_THAT(ReadWith("stages: ffn", "stages: ffm").message(), HasSubstr("'ffm'"));
  EXPECT_THAT(ReadWith("worker_down", "worker_left").message(), HasSubstr("'worker_left'"));
  EXPECT_THAT(ReadWith("layers: 3", "layers: 0").message(), HasSubstr("layers"));
  EXPECT_THAT(ReadWith("kv_blocks: 9", "kv_block: 9").message(), HasSubstr("kv_block"));
  EXPECT_THAT(ReadWith("kv_blocks: 9", "block_tokens: 0").message(), HasSubstr("block_tokens"));
  EXPECT_THAT(ReadWith("prompt_max: 4", "prompt_max: 1").message(), HasSubstr("prompt_max"));
  EXPECT_THAT(ReadWith("load:", "loads:").message(), HasSubstr("load"));
  for (const absl::string_view text : {"", "a", "- 1", "{", "name: [1]"}) {
    const absl::Status status = Read(text).status();
    EXPECT_FALSE(status.ok()) << text;
    EXPECT_THAT(status.message(), HasSubstr("small.yaml")) << text;
  }
}

}  // namespace
}  // namespace tandem::sim
