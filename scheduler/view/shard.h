#pragma once

// The part of a model's decode FFN that a worker holds: some layers, and of those all columns or
// one piece of them. Written "0:15" or "0/2" (layers) and "0/2" (column).

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <compare>
#include <cstdint>
#include <limits>
#include <string>

namespace tandem {

inline constexpr uint32_t kMaxShardColumns = 256;  // pieces of one cut
inline constexpr uint32_t kMaxShardLayers = 4096;  // bound of what peers may claim

// The intermediate columns (n_ff) of a layer are cut into `columns` pieces, of which this is number
// `column`. A piece's result is a full-width partial: the pieces' sum, in shard order, is the
// layer's FFN (PROTOCOL section 6).
struct FfnShard {
  static constexpr uint32_t kAllLayers = std::numeric_limits<uint32_t>::max();
  uint32_t first_layer = 0;
  uint32_t last_layer = kAllLayers;  // exclusive
  uint32_t column = 0;               // < columns
  uint32_t columns = 1;              // 1: whole layers

  bool HoldsLayer(uint32_t layer) const { return first_layer <= layer && layer < last_layer; }
  bool IsWhole(uint32_t layers) const {
    return first_layer == 0 && last_layer >= layers && columns == 1;
  }
  // Shard order: by layers, then by column.
  auto operator<=>(const FfnShard&) const = default;
};

// kInvalidArgument with the numbers: no layer, layers that a model of `layers` has not, no such
// column, more than kMaxShardColumns.
absl::Status CheckShard(const FfnShard& shard, uint32_t layers);
// kAllLayers becomes `layers`, so that equal shards compare equal.
FfnShard ResolveShard(FfnShard shard, uint32_t layers);
// "whole", "layers [0, 15)", "column 0/2", "layers [0, 15) column 0/2".
std::string ToString(const FfnShard& shard, uint32_t layers);

// The last word of the ffn part of a numerics class (DESIGN section 8.1): "whole" for whole layers,
// "column/2" for a cut into two.
std::string GeometryOf(uint32_t columns);
// The part without that word: equal for workers whose results differ by the cut alone.
absl::string_view WithoutGeometry(absl::string_view ffn_class);

// What a configuration asks for, before the model's number of layers is known.
struct ShardRequest {
  uint32_t first_layer = 0, last_layer = FfnShard::kAllLayers;  // exclusive
  uint32_t layer_part = 0, layer_parts = 1;  // of those layers, this one of so many even parts
  uint32_t column = 0, columns = 1;

  bool IsWhole() const { return *this == ShardRequest(); }
  bool operator==(const ShardRequest&) const = default;
};
// `layers`: "all", "FIRST:LAST" (last exclusive) or "I/N"; `column`: "I/N". kInvalidArgument names
// the key and the text.
absl::StatusOr<ShardRequest> ParseShardRequest(absl::string_view layers, absl::string_view column);
// Part i of n takes layers [i*L/n, (i+1)*L/n). kInvalidArgument: a part without a layer; and as
// CheckShard.
absl::StatusOr<FfnShard> ResolveRequest(const ShardRequest& request, uint32_t layers);

// Which of `width` intermediate columns a piece has: its quantisation blocks of `block_columns`,
// spread as evenly as whole blocks can be (piece i of n: blocks [i*B/n, (i+1)*B/n)).
struct ColumnRange {
  uint32_t first = 0, last = 0;  // exclusive
  uint32_t size() const { return last - first; }
};
// kInvalidArgument with the numbers: `width` is no multiple of a block, or there are fewer blocks
// than pieces.
absl::StatusOr<ColumnRange> CutColumns(const FfnShard& shard, uint32_t width,
                                       uint32_t block_columns);

}  // namespace tandem
