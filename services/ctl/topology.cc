#include "services/ctl/topology.h"

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

namespace tandem::ctl {
namespace {

absl::Status ShapeError(const TopologyPreset& topology, absl::string_view shape,
                        absl::string_view why) {
  return absl::InvalidArgumentError(
      absl::StrCat("shape '", shape, "' does not fit topology ", topology.name, ": ", why,
                   "; it needs the form ", topology.shape_form, ", such as ",
                   FormatShape(topology, std::vector<int>(topology.pools.size(), 1))));
}

}  // namespace

const std::vector<TopologyPreset>& Topologies() {
  static const auto* const presets = new std::vector<TopologyPreset>{
      {"colocated", "nW", {{'W', "colocated", "prefill,attention,ffn", "hbm"}}},
      {"pd", "xPyD", {{'P', "prefill", "prefill", "hbm"}, {'D', "decode", "attention,ffn", "hbm"}}},
      {"afd",
       "xAyF",
       {{'A', "attention", "prefill,attention", "hbm"}, {'F', "ffn", "ffn", "sram"}}},
      {"pd-afd",
       "xPyAzF",
       {{'P', "prefill", "prefill", "hbm"},
        {'A', "attention", "attention", "hbm"},
        {'F', "ffn", "ffn", "sram"}}},
      {"pd-sram",
       "xPyD",
       {{'P', "prefill", "prefill", "hbm"}, {'D', "decode", "attention,ffn", "sram"}}},
      {"sram", "nW", {{'W', "sram", "prefill,attention,ffn", "sram"}}},
  };
  return *presets;
}

absl::StatusOr<const TopologyPreset*> FindTopology(absl::string_view name) {
  std::vector<absl::string_view> names;
  for (const TopologyPreset& preset : Topologies()) {
    if (preset.name == name) return &preset;
    names.push_back(preset.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("no topology '", name, "'; there are ", absl::StrJoin(names, ", ")));
}

absl::StatusOr<std::vector<int>> ParseShape(const TopologyPreset& topology,
                                            absl::string_view shape) {
  if (shape.empty()) return std::vector<int>(topology.pools.size(), 1);
  std::vector<int> counts;
  size_t at = 0;
  for (const PoolPreset& pool : topology.pools) {
    int count = 0;
    const size_t digits = at;
    while (at < shape.size() && absl::ascii_isdigit(shape[at]) && count <= kMaxWorkersPerPool) {
      count = count * 10 + (shape[at++] - '0');
    }
    if (at == digits || at == shape.size() || absl::ascii_toupper(shape[at]) != pool.letter) {
      return ShapeError(topology, shape,
                        absl::StrCat("expected a number and ", std::string(1, pool.letter)));
    }
    if (count < 1 || count > kMaxWorkersPerPool) {
      return ShapeError(topology, shape,
                        absl::StrCat(count, " workers of pool ", pool.pool, " are not in [1, ",
                                     kMaxWorkersPerPool, "]"));
    }
    counts.push_back(count);
    ++at;
  }
  if (at != shape.size())
    return ShapeError(topology, shape, absl::StrCat("'", shape.substr(at), "' is left over"));
  return counts;
}

std::string FormatShape(const TopologyPreset& topology, const std::vector<int>& counts) {
  std::string shape;
  for (size_t i = 0; i < topology.pools.size() && i < counts.size(); ++i) {
    absl::StrAppend(&shape, counts[i], std::string(1, topology.pools[i].letter));
  }
  return shape;
}

}  // namespace tandem::ctl
