#pragma once

// Topologies as a table: which pools each has, what they run, and the letter that counts them in a
// shape.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>
#include <vector>

namespace tandem::ctl {

// One pool of a topology. `stages` is in the form of tandem-worker's flag: "prefill,attention".
struct PoolPreset {
  char letter;             // in shapes: the P of 1P2A2F
  absl::string_view pool;  // the pool's name, and the start of its workers' names
  absl::string_view stages;
  absl::string_view memory_class;  // "hbm" or "sram"
};

struct TopologyPreset {
  absl::string_view name;         // "pd-afd"
  absl::string_view shape_form;   // "xPyAzF", for messages
  std::vector<PoolPreset> pools;  // in the order of the shape's letters
};

inline constexpr int kMaxWorkersPerPool = 64;

// colocated, pd, afd, pd-afd, pd-sram, sram. The stages and memory classes of each are DESIGN
// section 3's.
const std::vector<TopologyPreset>& Topologies();

// kInvalidArgument names the topologies there are.
absl::StatusOr<const TopologyPreset*> FindTopology(absl::string_view name);

// Workers of each pool, in the order of `topology.pools`: "1P2A2F" gives {1, 2, 2}. An empty shape
// is one worker each. kInvalidArgument when the letters are not the topology's, or a count is not
// in [1, kMaxWorkersPerPool].
absl::StatusOr<std::vector<int>> ParseShape(const TopologyPreset& topology,
                                            absl::string_view shape);

// The inverse.
std::string FormatShape(const TopologyPreset& topology, const std::vector<int>& counts);

}  // namespace tandem::ctl
