// The catalog: names, and the files that come with the product.

#include "scheduler/model/catalog.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/model/catalog_texts.h"
#include "tests/unit/scheduler/model/shipped_catalog.h"

namespace tandem::model {
namespace {

using testing::HasSubstr;

TEST(Catalog, FindsWhatWasAdded) {
  Catalog catalog;
  ASSERT_TRUE(catalog.AddChip(kChipText, "c.yaml").ok());
  ASSERT_TRUE(catalog.AddDevice(kDeviceText, "d.yaml").ok());
  ASSERT_TRUE(catalog.AddModel(kModelText, "m.yaml").ok());
  EXPECT_EQ(catalog.FindChip("tiny")->name, "tiny");
  EXPECT_EQ(catalog.FindDevice("tiny-x4")->count, 4u);
  EXPECT_EQ(catalog.FindDevice("tiny")->count, 1u);
  EXPECT_EQ(catalog.FindModel("small")->layers, 6u);
  EXPECT_EQ(catalog.ChipNames(), std::vector<std::string>{"tiny"});
  EXPECT_EQ(catalog.DeviceNames(), std::vector<std::string>{"tiny-x4"});
  EXPECT_EQ(catalog.ModelNames(), std::vector<std::string>{"small"});
}

TEST(Catalog, NameThatStandsTwiceIsRefusedWithBothFiles) {
  Catalog catalog;
  ASSERT_TRUE(catalog.AddChip(kChipText, "c.yaml").ok());
  ASSERT_TRUE(catalog.AddDevice(kDeviceText, "d.yaml").ok());
  ASSERT_TRUE(catalog.AddModel(kModelText, "m.yaml").ok());
  EXPECT_EQ(catalog.AddChip(kChipText, "mine.yaml"),
            absl::AlreadyExistsError("mine.yaml: name: chip 'tiny' is already in c.yaml"));
  EXPECT_EQ(catalog.AddModel(kModelText, "mine.yaml"),
            absl::AlreadyExistsError("mine.yaml: name: model 'small' is already in m.yaml"));
  EXPECT_EQ(catalog.AddDevice(kDeviceText, "mine.yaml"),
            absl::AlreadyExistsError("mine.yaml: name: device 'tiny-x4' is already in d.yaml"));
  // A chip is a device of its name.
  const std::string device = absl::StrReplaceAll(kDeviceText, {{"name: tiny-x4", "name: tiny"}});
  EXPECT_EQ(catalog.AddDevice(device, "mine.yaml"),
            absl::AlreadyExistsError("mine.yaml: name: chip 'tiny' is already in c.yaml"));
  const std::string chip = absl::StrReplaceAll(kChipText, {{"name: tiny", "name: tiny-x4"}});
  EXPECT_EQ(catalog.AddChip(chip, "mine.yaml"),
            absl::AlreadyExistsError("mine.yaml: name: device 'tiny-x4' is already in d.yaml"));
}

TEST(Catalog, UnknownNameListsTheNearest) {
  EXPECT_EQ(Shipped().FindModel("lama-3-70b").status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Shipped().FindModel("lama-3-70b").status().message(),
              HasSubstr("model 'lama-3-70b' is not in the catalog; nearest: llama-3-70b, "));
  EXPECT_THAT(Shipped().FindDevice("h100x8").status().message(), HasSubstr("nearest: h100-x8"));
  EXPECT_THAT(Shipped().FindDevice("h100-sx").status().message(), HasSubstr("h100-sxm"));
  EXPECT_EQ(Catalog().FindChip("a").status().message(),
            "chip 'a' is not in the catalog, which holds none");
  EXPECT_EQ(Catalog().AddDevice(kDeviceText, "d.yaml").message(),
            "d.yaml:3: chip: chip 'tiny' is not in the catalog, which holds none");
}

TEST(Catalog, ShortNamesStandForTheOnlyNameThatTheyBegin) {
  EXPECT_EQ(Shipped().ResolveDevice("h100")->name, "h100-sxm");  // the chip, not its groups
  EXPECT_EQ(Shipped().ResolveDevice("gb200")->name, "gb200");
  EXPECT_EQ(Shipped().ResolveDevice("h100-x8")->name, "h100-x8");
  EXPECT_EQ(Shipped().ResolveDevice("groq3-lpx")->name, "groq3-lpx-rack");
  EXPECT_EQ(Shipped().ResolveDevice("cs-3")->name, "cs-3");  // not cs-3-x4
  EXPECT_EQ(Shipped().ResolveDevice("vera")->name, "vera-rubin");
  EXPECT_EQ(Shipped().ResolveChip("b200")->name, "b200-sxm");
  EXPECT_EQ(Shipped().ResolveModel("deepseek")->name, "deepseek-v3");
  EXPECT_EQ(Shipped().ResolveModel("gpt-oss-2")->name, "gpt-oss-20b");
}

TEST(Catalog, ShortNamesOfSeveralOrNoneAreRefusedWithTheNames) {
  EXPECT_EQ(Shipped().ResolveDevice("tpu").status(),
            absl::InvalidArgumentError("device 'tpu' may be tpu-v5e, tpu-v5p, tpu-v6e"));
  EXPECT_EQ(Shipped().ResolveDevice("h100-x").status(),
            absl::InvalidArgumentError("device 'h100-x' may be h100-x2, h100-x4, h100-x8"));
  EXPECT_EQ(
      Shipped().ResolveModel("llama-3").status(),
      absl::InvalidArgumentError("model 'llama-3' may be llama-3-405b, llama-3-70b, llama-3-8b"));
  EXPECT_THAT(Shipped().ResolveDevice("h1000").status().message(),
              HasSubstr("device 'h1000' is not in the catalog; nearest: h100-x2, "));
  EXPECT_EQ(Shipped().ResolveDevice("").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(Shipped().ResolveChip("groq3-lpx").status().code(), absl::StatusCode::kNotFound);
}

// The chips of issue 5, the devices that its topologies need, and its models.
TEST(Catalog, ShippedFilesHoldWhatIsPromised) {
  for (const char* name :
       {"a100-sxm", "h100-sxm", "h200-sxm", "b200-sxm", "gb200", "vera-rubin", "trainium2",
        "trainium3", "tpu-v5e", "tpu-v5p", "tpu-v6e", "groq-lpu-v1", "groq3-lpu", "cs-3"}) {
    EXPECT_TRUE(Shipped().FindChip(name).ok()) << name;
    EXPECT_TRUE(Shipped().FindDevice(name).ok()) << name;
  }
  for (const char* name :
       {"h100-x2", "h100-x8", "h200-x8", "b200-x8", "vera-rubin-x8", "groq3-lpx-rack", "cs-3-x4",
        "tpu-v5e-x8", "tpu-v5p-x8", "trainium2-x16", "groq-lpu-v1-x576"}) {
    EXPECT_TRUE(Shipped().FindDevice(name).ok()) << name;
  }
  EXPECT_EQ(Shipped().ModelNames().size(), 23u);
  for (const std::string& name : Shipped().ModelNames())
    EXPECT_EQ(name.find("gpt-4"), std::string::npos);  // rumours are a user's file
}

// A figure of the product says what it is worth: what nobody measured or stated has a reason, and
// no number stands where none was found.
TEST(Catalog, ShippedFiguresAreMarkedAndReasoned) {
  const auto check = [](const Figure& figure) {
    EXPECT_GE(figure.source.size(), 8u) << figure.source;
    EXPECT_TRUE(figure.known() || figure.value == 0);
  };
  for (const std::string& name : Shipped().ChipNames()) {
    SCOPED_TRACE(name);
    const Chip chip = *Shipped().FindChip(name);
    for (const Figure& figure : {chip.memory_bytes, chip.bandwidth_bytes_per_s, chip.power_watts,
                                 chip.dollars_per_hour, chip.scale_up.bytes_per_s})
      check(figure);
    for (const auto& [dtype, figures] : chip.dtypes) {
      for (const Figure& figure : {figures.peak_flops, figures.bandwidth_efficiency,
                                   figures.compute_efficiency, figures.layer_seconds})
        check(figure);
    }
  }
  EXPECT_FALSE(Shipped().FindChip("vera-rubin")->dollars_per_hour.known());
  EXPECT_FALSE(Shipped().FindChip("groq3-lpu")->power_watts.known());
  EXPECT_FALSE(Shipped().FindDevice("groq3-lpx-rack")->dollars_per_second().has_value());
  EXPECT_DOUBLE_EQ(*Shipped().FindDevice("h100-x8")->dollars_per_second(), 8 * 1.69 / 3600);
}

}  // namespace
}  // namespace tandem::model
