#include "scheduler/model/device.h"

#include <absl/strings/str_cat.h>
#include <yaml-cpp/yaml.h>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"

namespace tandem::model {
namespace {

constexpr uint32_t kMaxChips = 1 << 16;

absl::Status ReadAllReduce(YamlReader reader, AllReduceFigures& figures) {
  RequireFigure(reader, "base_seconds", {0, 1}, figures.base_seconds);
  RequireFigure(reader, "doubling_seconds", {0, 1}, figures.doubling_seconds);
  RequireFigure(reader, "bytes_per_s", kBytesPerSecondRange, figures.bytes_per_s);
  return reader.Finish();
}

absl::Status ReadLayerSeconds(YamlReader reader, const Chip& chip, Device& device) {
  for (const Dtype dtype : kAllDtypes) {
    const std::string name(DtypeName(dtype));
    if (!reader.Has(name)) continue;
    RequireFigure(reader, name, kLayerSecondsRange, device.layer_seconds[dtype]);
    if (!chip.dtypes.contains(dtype))
      reader.Refuse(name, absl::StrCat("chip '", chip.name, "' has no figures for it"));
  }
  return reader.Finish();
}

std::optional<double> Times(const Figure& figure, double factor) {
  if (!figure.known()) return std::nullopt;
  return figure.value * factor;
}

}  // namespace

const Figure& Device::LayerSeconds(Dtype dtype) const {
  const auto own = layer_seconds.find(dtype);
  if (own != layer_seconds.end()) return own->second;
  const auto found = chip.dtypes.find(dtype);
  TANDEM_CHECK(found != chip.dtypes.end());
  return found->second.layer_seconds;
}

double Device::memory_bytes() const {
  return chip.memory_bytes.value * chip.usable_memory.value * count;
}

double Device::workspace_bytes() const { return chip.workspace_bytes.value * count; }

std::optional<double> Device::dollars_per_second() const {
  return Times(chip.dollars_per_hour, count / 3600.0);
}

std::optional<double> Device::watts() const { return Times(chip.power_watts, count); }

Device SingleChip(const Chip& chip) {
  Device device;
  device.name = chip.name;
  device.source = "one chip";
  device.chip = chip;
  device.link = chip.scale_out;
  return device;
}

absl::StatusOr<Device> ReadDevice(
    absl::string_view yaml, absl::string_view where,
    const std::function<const Chip*(const std::string&)>& find_chip,
    const std::function<std::string(const std::string&)>& near_chips) {
  const std::string file(where);
  ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(yaml, file));
  YamlReader reader(root, file);
  Device device;
  std::string chip_name;
  RequireText(reader, "name", device.name);
  RequireText(reader, "source", device.source);
  RequireText(reader, "chip", chip_name);
  reader.Require("count", device.count, 1, kMaxChips);
  reader.Require("tp", device.tp, 1, kMaxChips);
  const Chip* chip = find_chip(chip_name);
  if (chip == nullptr) {
    reader.Refuse("chip", near_chips(chip_name));
  } else {
    device.chip = *chip;
  }
  if (device.count % device.tp != 0)
    reader.Refuse("tp", absl::StrCat(device.tp, " does not divide ", device.count, " chips"));
  if (device.tp > 1 && reader.Needs("all_reduce")) {
    reader.GetMapping("all_reduce", [&](const YAML::Node& node) {
      return ReadAllReduce(reader.Below(node, "all_reduce"), device.all_reduce);
    });
  }
  RequireLink(reader, "link", device.link, IfUnknown::kRefuse);
  reader.GetMapping("layer_seconds", [&](const YAML::Node& node) {
    return ReadLayerSeconds(reader.Below(node, "layer_seconds"), device.chip, device);
  });
  RETURN_IF_ERROR(reader.Finish());
  return device;
}

}  // namespace tandem::model
