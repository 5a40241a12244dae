#include "services/ctl/emulation.h"

#include <absl/strings/str_cat.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "services/ctl/time_scale.h"
#include "services/runtime/catalog_files.h"

namespace tandem::ctl {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

ClusterConfig Afd() {
  ClusterConfig config = PresetCluster(**FindTopology("afd"), {1, 2});
  config.emulation.model_shape = "llama-3-70b";
  config.emulation.devices = "rubin-lpx";
  return config;
}

TEST(Emulation, ASetGivesEachPoolItsDevice) {
  ClusterConfig config = Afd();
  ASSERT_TRUE(EmulateCluster(config).ok());
  EXPECT_EQ(config.workers[0].flags.at("device"), "vera-rubin-x8");
  EXPECT_EQ(config.workers[1].flags.at("device"), "groq3-lpx-rack");
  EXPECT_EQ(config.workers[1].flags.at("weights"), "fp8");
  EXPECT_EQ(config.workers[1].flags.at("time-scale"), "1");
  EXPECT_EQ(config.model_name, "llama-3-70b");
  ScaleCluster(config, 12);
  for (const WorkerSet& workers : config.workers) EXPECT_EQ(workers.flags.at("time-scale"), "12");
}

TEST(Emulation, AWorkersOwnFlagsWin) {
  ClusterConfig config = Afd();
  for (WorkerSet& workers : config.workers) workers.flags["device"] = "h100-x8";
  config.emulation.weights = "bf16";  // of which an LPX rack knows nothing
  ASSERT_EQ(EmulateCluster(config), absl::OkStatus());
  EXPECT_EQ(config.workers[0].flags.at("device"), "h100-x8");
  EXPECT_EQ(config.workers[0].flags.at("weights"), "bf16");
}

TEST(Emulation, WhatIsGivenGoesBeforeTheFile) {
  Emulation emulation = Afd().emulation;
  Override(emulation, NothingGiven());
  EXPECT_EQ(emulation, Afd().emulation);
  Emulation given = NothingGiven();
  given.time_scale = "20";
  Override(emulation, given);
  EXPECT_EQ(emulation.time_scale, "20");
  EXPECT_EQ(emulation.devices, "rubin-lpx");
}

TEST(Emulation, NumericsOfTheClustersModelOrOfAnotherFile) {
  const auto flags_with = [](const std::string& numerics) {
    ClusterConfig config = Afd();
    config.model = "/models/small.gguf";
    config.emulation.numerics = numerics;
    const absl::Status status = EmulateCluster(config);
    EXPECT_TRUE(status.ok()) << status;
    return config.workers[1].flags;
  };
  EXPECT_EQ(flags_with("synthetic").at("numerics"), "synthetic");
  EXPECT_FALSE(flags_with("synthetic").contains("payload")) << "the worker knows what it needs";
  EXPECT_EQ(flags_with("model").at("numerics"), "model:/models/small.gguf");
  EXPECT_EQ(flags_with("model:/other/../big.gguf").at("numerics"), "model:/big.gguf");
  for (const char* word : {"chain", "model:", ""}) {
    ClusterConfig config = Afd();
    config.emulation.numerics = word;
    EXPECT_THAT(std::string(EmulateCluster(config).message()),
                HasSubstr(absl::StrCat("numerics: '", word, "' is neither synthetic, model nor")));
  }
}

TEST(Emulation, WhatIsMissingIsNamed) {
  ClusterConfig nothing = Afd();
  nothing.emulation.model_shape.clear();
  EXPECT_THAT(std::string(EmulateCluster(nothing).message()), HasSubstr("model_shape"));
  ClusterConfig unknown = Afd();
  unknown.emulation.devices = "abacus";
  EXPECT_THAT(std::string(EmulateCluster(unknown).message()), HasSubstr("no set 'abacus'"));
  ClusterConfig none = Afd();
  none.emulation.devices.clear();
  EXPECT_THAT(std::string(EmulateCluster(none).message()), HasSubstr("pool 'attention'"));
  ClusterConfig zero = Afd();
  zero.emulation.time_scale = "0";
  EXPECT_THAT(std::string(EmulateCluster(zero).message()), HasSubstr("time_scale: '0'"));
}

TEST(Emulation, NamesThatNoCatalogHasAreRefusedWithThoseThatThereAre) {
  const auto why_not = [](std::string Emulation::*field, const std::string& value) {
    ClusterConfig config = Afd();
    config.emulation.*field = value;
    const absl::Status status = EmulateCluster(config);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    return std::string(status.message());
  };
  EXPECT_THAT(
      why_not(&Emulation::model_shape, "llama-3-71b"),
      AllOf(HasSubstr("model_shape: "), HasSubstr("'llama-3-71b'"), HasSubstr("llama-3-70b")));
  EXPECT_THAT(why_not(&Emulation::weights, "fp7"),
              AllOf(HasSubstr("weights: 'fp7' is none of bf16, fp8")));
  ClusterConfig device = Afd();
  device.workers[1].flags["device"] = "groq4-lpx-rack";
  EXPECT_THAT(std::string(EmulateCluster(device).message()),
              AllOf(HasSubstr("pool 'ffn': device: "), HasSubstr("groq3-lpx-rack")));
}

TEST(Emulation, EveryDeviceOfTheSetsIsInTheCatalog) {
  const std::string root = std::getenv("TANDEM_SOURCE_DIR");
  const absl::StatusOr<model::Catalog> catalog = LoadCatalog({root + "/scheduler/model/catalog"});
  ASSERT_TRUE(catalog.ok()) << catalog.status();
  for (const DeviceSet& set : DeviceSets()) {
    for (const absl::string_view device : {set.prefill, set.attention, set.ffn}) {
      const absl::StatusOr<model::Device> found = catalog->FindDevice(std::string(device));
      ASSERT_TRUE(found.ok()) << set.name << ": " << found.status();
      EXPECT_TRUE(found->chip.dtypes.contains(*model::ParseDtype(set.weights))) << set.name;
    }
  }
}

TEST(TimeScale, TheNextOneCoversWhatTheHostLost) {
  EXPECT_EQ(NextTimeScale(4, 0.785), 9);
  EXPECT_GT(NextTimeScale(20, 0.03), 20);
  EXPECT_GT(NextTimeScale(1, 0), 1);
}

TEST(TimeScale, TheRatioIsReadFromAMetricsPage) {
  EXPECT_EQ(LagRatioOf("# TYPE x gauge\ntandem_emulation_lag_ratio{worker=\"f\"} 0.25\n"), 0.25);
  EXPECT_EQ(LagRatioOf("tandem_worker_sequences{worker=\"f\"} 3\n"), 0);
}

}  // namespace
}  // namespace tandem::ctl
