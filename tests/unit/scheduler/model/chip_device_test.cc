// Chip and device files: what is read, and that each mistake is named with file, line and key.

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <gtest/gtest.h>

#include "scheduler/model/chip.h"
#include "scheduler/model/device.h"
#include "tests/unit/scheduler/model/catalog_texts.h"

namespace tandem::model {
namespace {

std::string Edited(absl::string_view text, absl::string_view from, absl::string_view to) {
  const std::string edited = absl::StrReplaceAll(text, {{from, to}});
  EXPECT_NE(edited, text) << from;
  return edited;
}

std::string ChipRefusal(absl::string_view from, absl::string_view to) {
  const absl::Status status = ReadChip(Edited(kChipText, from, to), "f.yaml").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  return std::string(status.message());
}

absl::StatusOr<Device> Read(absl::string_view text) {
  static const Chip chip = *ReadChip(kChipText, "tiny.yaml");
  return ReadDevice(
      text, "d.yaml", [](const std::string& name) { return name == chip.name ? &chip : nullptr; },
      [](const std::string& name) { return absl::StrCat("no '", name, "'"); });
}

std::string DeviceRefusal(absl::string_view from, absl::string_view to) {
  return std::string(Read(Edited(kDeviceText, from, to)).status().message());
}

TEST(Chip, FiguresKeepValueMarkAndSource) {
  const auto chip = ReadChip(kChipText, "f.yaml");
  ASSERT_TRUE(chip.ok()) << chip.status();
  EXPECT_EQ(chip->name, "tiny");
  EXPECT_EQ(chip->memory_class, "sram");
  EXPECT_EQ(chip->memory_bytes.value, 44e9);
  EXPECT_EQ(chip->memory_bytes.mark, Mark::kStated);
  EXPECT_EQ(chip->memory_bytes.source, "data sheet");
  EXPECT_EQ(chip->scale_out.latency_seconds.mark, Mark::kMeasured);
  EXPECT_EQ(chip->dtypes.at(Dtype::kBf16).layer_seconds.mark, Mark::kFitted);
  EXPECT_EQ(chip->dtypes.at(Dtype::kBf16).compute_efficiency.mark, Mark::kAssumed);
  EXPECT_FALSE(chip->power_watts.known());
  EXPECT_EQ(chip->power_watts.source, "looked for, not found");
  EXPECT_EQ(MarkName(chip->power_watts.mark), "unknown");
  EXPECT_EQ(MarkName(Mark::kStated), "stated");
}

TEST(Chip, BadValuesAreRefusedWithLineAndKey) {
  EXPECT_EQ(ChipRefusal("value: 44e9", "value: many"),
            "f.yaml:3: memory_bytes.value: 'many' is no number");
  EXPECT_EQ(ChipRefusal("value: 44e9", "value: -1"),
            "f.yaml:3: memory_bytes.value: -1 is not in [1, 1e+16]");
  EXPECT_EQ(ChipRefusal("value: 44e9", "value: nan"),
            "f.yaml:3: memory_bytes.value: nan is not in [1, 1e+16]");
  EXPECT_EQ(ChipRefusal("value: 44e9", "value: inf"),
            "f.yaml:3: memory_bytes.value: inf is not in [1, 1e+16]");
  EXPECT_EQ(ChipRefusal("bandwidth_efficiency: {value: 1,", "bandwidth_efficiency: {value: 1.6,"),
            "f.yaml:18: dtypes.bf16.bandwidth_efficiency.value: 1.6 is not in [0.001, 1.5]");
  EXPECT_EQ(ChipRefusal("exponent: {value: 0", "exponent: {value: 3"),
            "f.yaml:20: dtypes.bf16.exponent: 3 is not 0, 1, 2 or 4");
  EXPECT_EQ(ChipRefusal("memory_class: sram", "memory_class: disk"),
            "f.yaml:2: memory_class: 'disk' is not hbm or sram");
}

TEST(Chip, FigureWithoutSourceOrWithAWrongMarkIsRefused) {
  EXPECT_EQ(ChipRefusal("mark: stated, source: \"price list\"", "mark: stated"),
            "f.yaml:14: dollars_per_hour.source: is missing");
  EXPECT_EQ(ChipRefusal("\"price list\"", "\"\""), "f.yaml:14: dollars_per_hour.source: is empty");
  EXPECT_EQ(ChipRefusal("7.2, mark: stated", "7.2, mark: guessed"),
            "f.yaml:14: dollars_per_hour.mark: 'guessed' is none of measured, fitted, assumed and "
            "stated");
  EXPECT_EQ(ChipRefusal("7.2, mark: stated", "7.2"),
            "f.yaml:14: dollars_per_hour.mark: is missing");
  EXPECT_EQ(ChipRefusal("7.2, mark: stated", "7.2, mark: stated, unit: euro"),
            "f.yaml:14: dollars_per_hour.unit: unknown key");
}

TEST(Chip, UnknownIsAWordForFiguresThatMayBe) {
  EXPECT_EQ(ChipRefusal("{value: 44e9, mark: stated, source", "{value: unknown, source"),
            "f.yaml:3: memory_bytes.value: must be known: assume a value, and say why");
  EXPECT_EQ(
      ChipRefusal("power_watts: {value: unknown,", "power_watts: {value: unknown, mark: assumed,"),
      "f.yaml:13: power_watts.mark: unknown key");
  EXPECT_EQ(ChipRefusal("power_watts: {value: unknown, source: \"looked for, not found\"}",
                        "power_watts: {value: unknown}"),
            "f.yaml:13: power_watts.source: is missing");
}

TEST(Chip, KeysThatAreUnknownMissingOrTwiceAreRefused) {
  EXPECT_EQ(ChipRefusal("name: tiny", "name: tiny\ncolour: blue"), "f.yaml:2: colour: unknown key");
  EXPECT_EQ(ChipRefusal("  bf16:", "  bf17:"), "f.yaml:16: dtypes.bf17: unknown key");
  EXPECT_EQ(ChipRefusal("    exponent:", "    power:"),
            "f.yaml:17: dtypes.bf16.exponent: is missing");
  EXPECT_EQ(ChipRefusal("memory_class: sram\n", ""), "f.yaml:1: memory_class: is missing");
  EXPECT_EQ(ChipRefusal("name: tiny", "name: tiny\nname: tiny"),
            "f.yaml:2: name: stands there twice");
  EXPECT_EQ(ChipRefusal("name: tiny", "name: ''"), "f.yaml:1: name: is empty");
  EXPECT_EQ(ReadChip("[1, 2]", "f.yaml").status().message(),
            "f.yaml:1: expected a mapping, found a list");
  EXPECT_EQ(ReadChip("name: [", "f.yaml").status().code(), absl::StatusCode::kInvalidArgument);
  const std::string text(kChipText.substr(0, kChipText.find("dtypes:")));
  EXPECT_EQ(ReadChip(text, "f.yaml").status().message(), "f.yaml:1: dtypes: is missing");
  EXPECT_EQ(ReadChip(text + "dtypes: {}", "f.yaml").status().message(),
            "f.yaml:15: dtypes: holds none");
}

TEST(Device, GroupHasItsChipsFiguresTimesItsCount) {
  const auto device = Read(kDeviceText);
  ASSERT_TRUE(device.ok()) << device.status();
  EXPECT_EQ(device->count, 4u);
  EXPECT_EQ(device->tp, 2u);
  EXPECT_EQ(device->chip.name, "tiny");
  EXPECT_EQ(device->memory_bytes(), 4 * 44e9);
  EXPECT_DOUBLE_EQ(*device->dollars_per_second(), 4 * 7.2 / 3600);
  EXPECT_FALSE(device->watts().has_value());
  EXPECT_EQ(device->LayerSeconds(Dtype::kBf16).value, 27.7e-6);  // its own, not its chip's
}

TEST(Device, SingleChipIsADeviceWithItsScaleOutLink) {
  const Device device = SingleChip(*ReadChip(kChipText, "f.yaml"));
  EXPECT_EQ(device.name, "tiny");
  EXPECT_EQ(device.count, 1u);
  EXPECT_EQ(device.link.bytes_per_s.value, 150e9);
  EXPECT_EQ(device.LayerSeconds(Dtype::kBf16).value, 17.3e-6);
}

TEST(Device, BadFilesAreRefusedWithLineAndKey) {
  EXPECT_EQ(DeviceRefusal("chip: tiny", "chip: tinny"), "d.yaml:3: chip: no 'tinny'");
  EXPECT_EQ(DeviceRefusal("tp: 2", "tp: 3"), "d.yaml:5: tp: 3 does not divide 4 chips");
  EXPECT_EQ(DeviceRefusal("tp: 2", "tp: 0"), "d.yaml:5: tp: 0 is not in [1, 65536]");
  EXPECT_EQ(DeviceRefusal("count: 4", "count: 1.5"), "d.yaml:4: count: '1.5' is no integer");
  EXPECT_EQ(DeviceRefusal("tp: 2", "tp: 1"), "d.yaml:6: all_reduce: unknown key");
  EXPECT_EQ(DeviceRefusal("all_reduce:", "all_reduced:"), "d.yaml:1: all_reduce: is missing");
  EXPECT_EQ(DeviceRefusal("value: 2.1e-6", "value: -2.1e-6"),
            "d.yaml:8: all_reduce.doubling_seconds.value: -2.1e-6 is not in [0, 1]");
  EXPECT_EQ(DeviceRefusal("  bf16:", "  fp8:"),
            "d.yaml:14: layer_seconds.fp8: chip 'tiny' has no figures for it");
  EXPECT_EQ(DeviceRefusal("source: \"a test\"\nchip", "chip"), "d.yaml:1: source: is missing");
}

TEST(Dtype, BitsCountTheScales) {
  EXPECT_EQ(BitsPerWeight(Dtype::kBf16), 16);
  EXPECT_EQ(BitsPerWeight(Dtype::kFp8), 8);
  EXPECT_EQ(BitsPerWeight(Dtype::kInt4), 4 + 16.0 / 32);
  EXPECT_EQ(BitsPerWeight(Dtype::kNvfp4), 4 + 8.0 / 16);
  EXPECT_EQ(BitsPerWeight(Dtype::kMxfp4), 4 + 8.0 / 32);
  for (const Dtype dtype : kAllDtypes) EXPECT_EQ(*ParseDtype(DtypeName(dtype)), dtype);
  EXPECT_EQ(ParseDtype("fp16").status().message(),
            "'fp16' is none of bf16, fp8, int8, int4, nvfp4, mxfp4");
}

}  // namespace
}  // namespace tandem::model
