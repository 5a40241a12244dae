#pragma once

// "What if this chip had other figures": overrides of the catalog, for one question.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <absl/types/span.h>

#include <optional>
#include <string>
#include <vector>

#include "scheduler/model/catalog.h"

namespace tandem::model {

// One override: SCOPE.KEY=VALUE, as "hbm.bandwidth=22TB/s" or "cs-3.peak.bf16=62.5PFLOPS". Every
// figure is of one chip, also where a group of chips is looked at.
//   SCOPE   a memory class, or a chip
//   KEY     bandwidth (TB/s), memory (GB, GiB), price ($/h), power (W), peak.DTYPE (TFLOPS) and
//           layer.DTYPE (us: the fixed time of a layer in a decode step)
//   VALUE   with a unit (quantity.h), in the range that a catalog file may have
struct WhatIf {
  enum class Key { kBandwidth, kMemory, kPrice, kPower, kPeak, kLayer };
  std::string text;  // all of it, as given
  std::string scope;
  Key key = Key::kBandwidth;
  std::optional<Dtype> dtype;  // of kPeak and kLayer
  double value = 0;
};

// kInvalidArgument, with the text: no such form, an unknown key (with the keys), a unit that is
// not the key's, a value that is negative, not finite or out of range.
absl::StatusOr<WhatIf> ParseWhatIf(absl::string_view text);

// Whether `device` has the figure that `what_if` names; if so replaces it, with Mark::kWhatIf and a
// source that names the override and what it stands for. The scope is a whole chip's name.
bool ApplyWhatIf(const WhatIf& what_if, Device& device);

// Parses `texts`, finds the chip that each scope stands for (Catalog::ResolveDevice), and applies
// them in order. kNotFound: no such chip; kInvalidArgument: as ParseWhatIf, a group as scope, or
// none of `devices` is changed by one of them.
absl::Status ApplyWhatIfs(const Catalog& catalog, absl::Span<const std::string> texts,
                          std::vector<Device>& devices);

}  // namespace tandem::model
