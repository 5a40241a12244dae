#pragma once

// What one worker owns: a chip, or a group of equal chips driven as one.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "scheduler/model/chip.h"

namespace tandem::model {

// What adding up the partial results of a tensor-parallel group costs.
struct AllReduceFigures {
  Figure base_seconds;      // of two chips; 0 where layer_seconds contains it
  Figure doubling_seconds;  // more for each doubling of tp
  Figure bytes_per_s;       // of each chip's link within the group, one direction
};

struct Device {
  std::string name;    // "h100-x8"; a single chip has its chip's name
  std::string source;  // of the grouping
  Chip chip;
  uint32_t count = 1;
  // Tensor-parallel degree: the chips that share each layer. It divides count; count / tp such sets
  // form a pipeline, so that a layer has tp chips' bandwidth, and weights have all chips' memory.
  uint32_t tp = 1;
  AllReduceFigures all_reduce;  // meaningless at tp 1
  LinkFigures link;             // of the whole device to other workers
  // Replaces the chip's t0 where a whole system was measured; with it everything inside the group.
  std::map<Dtype, Figure> layer_seconds;

  const Figure& LayerSeconds(Dtype dtype) const;     // `dtype` is one of the chip's
  double memory_bytes() const;                       // usable, of all chips
  double workspace_bytes() const;                    // of all chips
  std::optional<double> dollars_per_second() const;  // none: the price is unknown
  std::optional<double> watts() const;
};

// The device of the chip's own name: one of it, its scale-out link.
Device SingleChip(const Chip& chip);

// `find_chip` answers null for a chip that is not in the catalog; `near_chips` then says so, with
// the names it has. kInvalidArgument names file, line and key.
absl::StatusOr<Device> ReadDevice(absl::string_view yaml, absl::string_view where,
                                  const std::function<const Chip*(const std::string&)>& find_chip,
                                  const std::function<std::string(const std::string&)>& near_chips);

}  // namespace tandem::model
