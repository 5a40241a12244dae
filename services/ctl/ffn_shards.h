#pragma once

// How the workers of an FFN pool divide the FFN among them. In a cluster's file:
//
//   shards: layers       # worker i of n holds the i-th part of the layers
//   shards: columns      # or the i-th part of every layer's columns
//   shards: replicas     # or all of it: the default
//   shards:              # or what is written: worker i holds entry i, beginning again at the end
//     - {layers: "0:10"}                  # first, and last exclusive; or I/N: even parts
//     - {layers: "10:30", column: 0/2}    # a piece of those layers' columns
//     - {layers: "10:30", column: 1/2}

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>
#include <vector>

namespace tandem::ctl {

// The values of tandem-worker's --layers and --column.
struct ShardText {
  std::string layers = "all", column = "0/1";
  bool operator==(const ShardText&) const = default;
};

// `kind` is "layers", "columns" or "replicas" (none are returned: workers hold all).
absl::StatusOr<std::vector<ShardText>> EvenShards(absl::string_view kind, int workers);

// That together they are the FFN once, for `workers` workers. kInvalidArgument with the numbers: a
// text that is none; layers that overlap and are not equal (equal ones are replicas, or pieces of
// one cut); a gap between layers; a piece of a cut that is missing, or two cuts of the same layers;
// fewer workers than shards.
absl::Status CheckShards(const std::vector<ShardText>& shards, int workers);

}  // namespace tandem::ctl
