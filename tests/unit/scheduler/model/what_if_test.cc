#include "scheduler/model/what_if.h"

#include <absl/strings/str_replace.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/scheduler/model/catalog_texts.h"
#include "tests/unit/scheduler/model/shipped_catalog.h"

namespace tandem::model {
namespace {

using testing::HasSubstr;

std::vector<Device> Devices(const std::vector<std::string>& names) {
  std::vector<Device> devices;
  for (const std::string& name : names) devices.push_back(*Shipped().FindDevice(name));
  return devices;
}

absl::Status Apply(const std::vector<std::string>& texts, std::vector<Device>& devices) {
  return ApplyWhatIfs(Shipped(), texts, devices);
}

std::string Refused(const std::string& text) {
  std::vector<Device> devices = Devices({"h100-sxm", "cs-3", "groq3-lpx-rack"});
  return std::string(Apply({text}, devices).message());
}

TEST(WhatIf, MemoryClassChangesEveryChipOfIt) {
  std::vector<Device> devices = Devices({"h100-sxm", "cs-3", "b200-x8"});
  ASSERT_TRUE(Apply({"hbm.bandwidth=22TB/s"}, devices).ok());
  EXPECT_EQ(devices[0].chip.bandwidth_bytes_per_s.value, 22e12);
  EXPECT_EQ(devices[1].chip.bandwidth_bytes_per_s.value, 21e15);
  EXPECT_EQ(devices[2].chip.bandwidth_bytes_per_s.value, 22e12);
  EXPECT_EQ(devices[0].chip.memory_bytes.value, 80e9);
}

TEST(WhatIf, FigureSaysThatItIsOneAndWhatItReplaces) {
  std::vector<Device> devices = Devices({"h100-sxm", "groq3-lpx-rack"});
  ASSERT_TRUE(Apply({"h100.bandwidth=22TB/s", "groq3-lpu.price=5"}, devices).ok());
  const Figure& bandwidth = devices[0].chip.bandwidth_bytes_per_s;
  EXPECT_EQ(bandwidth.mark, Mark::kWhatIf);
  EXPECT_EQ(MarkName(bandwidth.mark), "what-if");
  EXPECT_EQ(bandwidth.source, "what if h100.bandwidth=22TB/s; the catalog says 3.35 TB/s (stated)");
  EXPECT_EQ(devices[1].chip.dollars_per_hour.source,
            "what if groq3-lpu.price=5; the catalog says unknown");
  EXPECT_DOUBLE_EQ(*devices[1].dollars_per_second(), 256 * 5 / 3600.0);  // of one chip
}

TEST(WhatIf, EveryKeyReachesItsFigure) {
  std::vector<Device> devices = Devices({"cs-3", "cs-3-x4"});
  ASSERT_TRUE(Apply({"cs-3.memory=88GB", "cs-3.power=20kW", "cs-3.peak.bf16=62.5PFLOPS",
                     "cs-3.layer.bf16=5us"},
                    devices)
                  .ok());
  for (const Device& device : devices) {
    EXPECT_EQ(device.chip.memory_bytes.value, 88e9);
    EXPECT_EQ(device.chip.power_watts.value, 20e3);
    EXPECT_EQ(device.chip.dtypes.at(Dtype::kBf16).peak_flops.value, 62.5e15);
    // A group's own layer time stands for the chip's, so it is the one that changes.
    EXPECT_DOUBLE_EQ(device.LayerSeconds(Dtype::kBf16).value, 5e-6);
    EXPECT_EQ(device.LayerSeconds(Dtype::kBf16).mark, Mark::kWhatIf);
  }
}

TEST(WhatIf, LaterOnesWin) {
  std::vector<Device> devices = Devices({"h100-sxm", "h200-sxm"});
  ASSERT_TRUE(Apply({"hbm.price=2", "h200.price=3"}, devices).ok());
  EXPECT_EQ(devices[0].chip.dollars_per_hour.value, 2);
  EXPECT_EQ(devices[1].chip.dollars_per_hour.value, 3);
}

TEST(WhatIf, UnknownKeysAreRefusedWithTheKeys) {
  const std::string keys =
      "; the keys are bandwidth, memory, price, power, peak.DTYPE, layer.DTYPE";
  EXPECT_EQ(Refused("hbm.bandwith=22TB/s"),
            "what-if 'hbm.bandwith=22TB/s': no key 'bandwith'" + keys);
  EXPECT_EQ(Refused("hbm.=22TB/s"), "what-if 'hbm.=22TB/s': no key ''" + keys);
  EXPECT_EQ(Refused("hbm.fp8=1TFLOPS"), "what-if 'hbm.fp8=1TFLOPS': no key 'fp8'" + keys);
  EXPECT_EQ(Refused("hbm.peak=1TFLOPS"),
            "what-if 'hbm.peak=1TFLOPS': peak needs a dtype, as peak.fp8");
  EXPECT_EQ(Refused("hbm.memory.fp8=1GB"),
            "what-if 'hbm.memory.fp8=1GB': memory is the same for every dtype");
}

TEST(WhatIf, FormIsChecked) {
  const std::string form = "': expected SCOPE.KEY=VALUE, as hbm.bandwidth=22TB/s";
  for (const char* text : {"", "hbm", "hbm.bandwidth", "bandwidth=22TB/s", ".bandwidth=22TB/s"})
    EXPECT_EQ(Refused(text), absl::StrCat("what-if '", text, form));
}

TEST(WhatIf, ValuesAreCheckedAsTheCatalogsAre) {
  EXPECT_EQ(Refused("hbm.bandwidth=-22TB/s"),
            "what-if 'hbm.bandwidth=-22TB/s': -22 TB/s is not in [1 B/s, 1000 PB/s]");
  EXPECT_EQ(Refused("hbm.bandwidth=0TB/s"),
            "what-if 'hbm.bandwidth=0TB/s': 0 B/s is not in [1 B/s, 1000 PB/s]");
  EXPECT_EQ(Refused("cs-3.price=-1"),
            "what-if 'cs-3.price=-1': $-1/h is not in [$0/h, $1000000/h]");
  EXPECT_EQ(Refused("cs-3.price=nan"), "what-if 'cs-3.price=nan': 'nan' is no finite number");
  EXPECT_EQ(Refused("cs-3.memory=inf GB"),
            "what-if 'cs-3.memory=inf GB': 'inf GB' is no finite number");
  EXPECT_EQ(Refused("cs-3.memory=88"),
            "what-if 'cs-3.memory=88': '88' has none of the units B, kB, KiB, MB, MiB, GB, GiB, "
            "TB, TiB, PB");
}

TEST(WhatIf, ScopeIsAClassOrAChipThatIsCompared) {
  EXPECT_THAT(
      Refused("h1000.price=5"),
      HasSubstr("what-if 'h1000.price=5': device 'h1000' is not in the catalog; nearest: "));
  EXPECT_EQ(Refused("tpu.price=5"),
            "what-if 'tpu.price=5': device 'tpu' may be tpu-v5e, tpu-v5p, tpu-v6e");
  EXPECT_EQ(Refused("groq3-lpx.price=5"),
            "what-if 'groq3-lpx.price=5': figures are of one chip: groq3-lpx-rack is 256 x "
            "groq3-lpu; say groq3-lpu");
  EXPECT_EQ(Refused("h200.price=5"), "what-if 'h200.price=5': changes none of the chips compared");
  EXPECT_EQ(Refused("cs-3.peak.fp8=1PFLOPS"),
            "what-if 'cs-3.peak.fp8=1PFLOPS': changes none of the chips compared");
}

TEST(WhatIf, NoFileMaySaySo) {
  const std::string text = absl::StrReplaceAll(kChipText, {{"mark: stated", "mark: what-if"}});
  EXPECT_THAT(ReadChip(text, "c.yaml").status().message(),
              HasSubstr("'what-if' is none of measured, fitted, assumed and stated"));
}

}  // namespace
}  // namespace tandem::model
