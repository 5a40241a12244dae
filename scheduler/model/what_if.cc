#include "scheduler/model/what_if.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <array>
#include <utility>

#include "scheduler/base/status.h"
#include "scheduler/model/quantity.h"

namespace tandem::model {
namespace {

struct KeyEntry {
  WhatIf::Key key;
  absl::string_view name;
  Unit unit;
  Range range;
  bool by_dtype;
};
constexpr std::array<KeyEntry, 6> kKeys = {{
    {WhatIf::Key::kBandwidth, "bandwidth", Unit::kBytesPerSecond, kBytesPerSecondRange, false},
    {WhatIf::Key::kMemory, "memory", Unit::kBytes, kMemoryBytesRange, false},
    {WhatIf::Key::kPrice, "price", Unit::kDollarsPerHour, kDollarsPerHourRange, false},
    {WhatIf::Key::kPower, "power", Unit::kWatts, kPowerWattsRange, false},
    {WhatIf::Key::kPeak, "peak", Unit::kFlops, kPeakFlopsRange, true},
    {WhatIf::Key::kLayer, "layer", Unit::kSeconds, kLayerSecondsRange, true},
}};

std::string KeyNames() {
  return absl::StrJoin(kKeys, ", ", [](std::string* out, const KeyEntry& entry) {
    absl::StrAppend(out, entry.name, entry.by_dtype ? ".DTYPE" : "");
  });
}

const KeyEntry* FindKey(absl::string_view name) {
  for (const KeyEntry& entry : kKeys) {
    if (entry.name == name) return &entry;
  }
  return nullptr;
}

absl::Status Refused(absl::string_view text, absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("what-if '", text, "': ", why));
}

// Cuts "cs-3.peak.bf16" into scope, key and dtype. A chip's name may hold points: what stands last
// decides.
absl::Status ReadKey(absl::string_view left, WhatIf& what_if, const KeyEntry*& entry) {
  const size_t dot = left.rfind('.');
  if (dot == absl::string_view::npos || dot == 0)
    return Refused(what_if.text, "expected SCOPE.KEY=VALUE, as hbm.bandwidth=22TB/s");
  absl::string_view scope = left.substr(0, dot);
  absl::string_view name = left.substr(dot + 1);
  if (const absl::StatusOr<Dtype> dtype = ParseDtype(name); dtype.ok()) {
    what_if.dtype = *dtype;
    const size_t before = scope.rfind('.');
    name = before == absl::string_view::npos ? "" : scope.substr(before + 1);
    scope = before == absl::string_view::npos ? "" : scope.substr(0, before);
  }
  entry = FindKey(name);
  if (entry == nullptr || scope.empty())
    return Refused(what_if.text, absl::StrCat("no key '", left.substr(left.find('.') + 1),
                                              "'; the keys are ", KeyNames()));
  if (entry->by_dtype != what_if.dtype.has_value()) {
    return Refused(what_if.text, entry->by_dtype
                                     ? absl::StrCat(name, " needs a dtype, as ", name, ".fp8")
                                     : absl::StrCat(name, " is the same for every dtype"));
  }
  what_if.scope = std::string(scope);
  what_if.key = entry->key;
  return absl::OkStatus();
}

// The figure that `what_if` names; null where the device has no figures of its dtype.
Figure* FigureOf(const WhatIf& what_if, Device& device) {
  Chip& chip = device.chip;
  switch (what_if.key) {
    case WhatIf::Key::kBandwidth:
      return &chip.bandwidth_bytes_per_s;
    case WhatIf::Key::kMemory:
      return &chip.memory_bytes;
    case WhatIf::Key::kPrice:
      return &chip.dollars_per_hour;
    case WhatIf::Key::kPower:
      return &chip.power_watts;
    case WhatIf::Key::kPeak:
    case WhatIf::Key::kLayer:
      break;
  }
  const auto found = chip.dtypes.find(*what_if.dtype);
  if (found == chip.dtypes.end()) return nullptr;
  if (what_if.key == WhatIf::Key::kPeak) return &found->second.peak_flops;
  const auto own = device.layer_seconds.find(*what_if.dtype);  // a group's own replaces the chip's
  return own != device.layer_seconds.end() ? &own->second : &found->second.layer_seconds;
}

Unit UnitOf(WhatIf::Key key) {
  for (const KeyEntry& entry : kKeys) {
    if (entry.key == key) return entry.unit;
  }
  return Unit::kNone;
}

}  // namespace

absl::StatusOr<WhatIf> ParseWhatIf(absl::string_view text) {
  WhatIf what_if;
  what_if.text = std::string(text);
  const size_t equals = text.find('=');
  if (equals == absl::string_view::npos)
    return Refused(text, "expected SCOPE.KEY=VALUE, as hbm.bandwidth=22TB/s");
  const KeyEntry* entry = nullptr;
  RETURN_IF_ERROR(ReadKey(text.substr(0, equals), what_if, entry));
  const absl::StatusOr<double> value = ParseQuantity(text.substr(equals + 1), entry->unit);
  if (!value.ok()) return Refused(text, value.status().message());
  if (!(*value >= entry->range.min && *value <= entry->range.max)) {
    return Refused(text, absl::StrCat(FormatQuantity(*value, entry->unit), " is not in [",
                                      FormatQuantity(entry->range.min, entry->unit), ", ",
                                      FormatQuantity(entry->range.max, entry->unit), "]"));
  }
  what_if.value = *value;
  return what_if;
}

bool ApplyWhatIf(const WhatIf& what_if, Device& device) {
  if (what_if.scope != device.chip.memory_class && what_if.scope != device.chip.name) return false;
  Figure* figure = FigureOf(what_if, device);
  if (figure == nullptr) return false;
  const std::string was =
      figure->known() ? FormatQuantity(figure->value, UnitOf(what_if.key)) : "unknown";
  *figure = {what_if.value, Mark::kWhatIf,
             absl::StrCat("what if ", what_if.text, "; the catalog says ", was,
                          figure->known() ? absl::StrCat(" (", MarkName(figure->mark), ")") : "")};
  return true;
}

absl::Status ApplyWhatIfs(const Catalog& catalog, absl::Span<const std::string> texts,
                          std::vector<Device>& devices) {
  for (const std::string& text : texts) {
    ASSIGN_OR_RETURN(WhatIf what_if, ParseWhatIf(text));
    if (what_if.scope != "hbm" && what_if.scope != "sram") {
      const absl::StatusOr<Device> scope = catalog.ResolveDevice(what_if.scope);
      if (!scope.ok()) {
        return absl::Status(scope.status().code(),
                            absl::StrCat("what-if '", text, "': ", scope.status().message()));
      }
      if (scope->count > 1) {
        return Refused(text,
                       absl::StrCat("figures are of one chip: ", scope->name, " is ", scope->count,
                                    " x ", scope->chip.name, "; say ", scope->chip.name));
      }
      what_if.scope = scope->chip.name;
    }
    bool applied = false;
    for (Device& device : devices) applied |= ApplyWhatIf(what_if, device);
    if (!applied) return Refused(text, "changes none of the chips compared");
  }
  return absl::OkStatus();
}

}  // namespace tandem::model
