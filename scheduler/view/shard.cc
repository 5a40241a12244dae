#include "scheduler/view/shard.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "scheduler/base/status.h"

namespace tandem {
namespace {

constexpr absl::string_view kWhole = "whole";
constexpr absl::string_view kColumn = "column/";

// "A<separator>B" as two numbers.
std::optional<std::pair<uint32_t, uint32_t>> ReadPair(absl::string_view text, char separator) {
  const size_t at = text.find(separator);
  std::pair<uint32_t, uint32_t> pair;
  if (at == absl::string_view::npos || !absl::SimpleAtoi(text.substr(0, at), &pair.first) ||
      !absl::SimpleAtoi(text.substr(at + 1), &pair.second)) {
    return std::nullopt;
  }
  return pair;
}

absl::Status CheckPiece(absl::string_view what, uint32_t piece, uint32_t pieces) {
  if (pieces >= 1 && pieces <= kMaxShardColumns && piece < pieces) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(what, " ", piece, "/", pieces,
                                                 " is none: it must be below the second number, ",
                                                 "which is 1 to ", kMaxShardColumns));
}

// Piece `i` of `n` of `count` things begins here.
uint32_t Share(uint32_t count, uint32_t i, uint32_t n) {
  return static_cast<uint32_t>(uint64_t{count} * i / n);
}

}  // namespace

absl::Status CheckShard(const FfnShard& shard, uint32_t layers) {
  RETURN_IF_ERROR(CheckPiece("column", shard.column, shard.columns));
  const uint32_t last = shard.last_layer == FfnShard::kAllLayers ? layers : shard.last_layer;
  if (shard.first_layer >= last) {
    return absl::InvalidArgumentError(
        absl::StrCat("layers [", shard.first_layer, ", ", last, ") are none"));
  }
  if (last > layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("layers [", shard.first_layer, ", ", last, ") exceed the model's ", layers));
  }
  return absl::OkStatus();
}

FfnShard ResolveShard(FfnShard shard, uint32_t layers) {
  if (shard.last_layer == FfnShard::kAllLayers) shard.last_layer = layers;
  return shard;
}

std::string ToString(const FfnShard& shard, uint32_t layers) {
  std::string text;
  if (shard.first_layer != 0 || shard.last_layer < layers)
    absl::StrAppend(&text, "layers [", shard.first_layer, ", ", shard.last_layer, ")");
  if (shard.columns != 1) {
    absl::StrAppend(&text, text.empty() ? "" : " ", "column ", shard.column, "/", shard.columns);
  }
  return text.empty() ? std::string(kWhole) : text;
}

std::string GeometryOf(uint32_t columns) {
  return columns == 1 ? std::string(kWhole) : absl::StrCat(kColumn, columns);
}

absl::string_view WithoutGeometry(absl::string_view ffn_class) {
  const size_t column = ffn_class.rfind(kColumn);
  uint32_t columns = 0;
  if (column != absl::string_view::npos &&
      absl::SimpleAtoi(ffn_class.substr(column + kColumn.size()), &columns)) {
    return ffn_class.substr(0, column);
  }
  const size_t whole = ffn_class.rfind(kWhole);
  if (whole != absl::string_view::npos && whole + kWhole.size() == ffn_class.size())
    return ffn_class.substr(0, whole);
  return ffn_class;
}

absl::StatusOr<ShardRequest> ParseShardRequest(absl::string_view layers, absl::string_view column) {
  ShardRequest request;
  if (layers != "all") {
    if (const auto range = ReadPair(layers, ':')) {
      std::tie(request.first_layer, request.last_layer) = *range;
      if (range->first >= range->second || range->second > kMaxShardLayers) {
        return absl::InvalidArgumentError(absl::StrCat("layers: [", range->first, ", ",
                                                       range->second, ") is no range below ",
                                                       kMaxShardLayers));
      }
    } else if (const auto part = ReadPair(layers, '/')) {
      std::tie(request.layer_part, request.layer_parts) = *part;
      RETURN_IF_ERROR(CheckPiece("layers: part", part->first, part->second));
    } else {
      return absl::InvalidArgumentError(
          absl::StrCat("layers: '", layers, "' is none of all, FIRST:LAST and I/N"));
    }
  }
  const auto piece = ReadPair(column, '/');
  if (!piece) return absl::InvalidArgumentError(absl::StrCat("column: '", column, "' is no I/N"));
  std::tie(request.column, request.columns) = *piece;
  RETURN_IF_ERROR(CheckPiece("column:", piece->first, piece->second));
  return request;
}

absl::StatusOr<FfnShard> ResolveRequest(const ShardRequest& request, uint32_t layers) {
  FfnShard shard{request.first_layer, std::min(request.last_layer, layers), request.column,
                 request.columns};
  if (request.last_layer != FfnShard::kAllLayers) shard.last_layer = request.last_layer;
  if (request.layer_parts > layers) {
    return absl::InvalidArgumentError(absl::StrCat("layers ", request.layer_part, "/",
                                                   request.layer_parts, ": the model has ", layers,
                                                   " layers, fewer than parts"));
  }
  if (request.layer_parts > 1) {
    shard.first_layer = Share(layers, request.layer_part, request.layer_parts);
    shard.last_layer = Share(layers, request.layer_part + 1, request.layer_parts);
  }
  RETURN_IF_ERROR(CheckShard(shard, layers));
  return shard;
}

absl::StatusOr<ColumnRange> CutColumns(const FfnShard& shard, uint32_t width,
                                       uint32_t block_columns) {
  if (block_columns == 0 || width % block_columns != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("column ", shard.column, "/", shard.columns, ": ", width,
                     " columns are no multiple of a quantisation block of ", block_columns));
  }
  const uint32_t blocks = width / block_columns;
  if (blocks < shard.columns) {
    return absl::InvalidArgumentError(absl::StrCat(
        "column ", shard.column, "/", shard.columns, ": ", width, " columns are ", blocks,
        " quantisation blocks of ", block_columns, ", which cannot be cut into ", shard.columns));
  }
  return ColumnRange{Share(blocks, shard.column, shard.columns) * block_columns,
                     Share(blocks, shard.column + 1, shard.columns) * block_columns};
}

}  // namespace tandem
