#include "services/ctl/ffn_shards.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cstdint>
#include <set>

#include "scheduler/base/status.h"
#include "scheduler/view/shard.h"

namespace tandem::ctl {
namespace {

// Layers as a part of the model, from first / of to last / of; `of` 0: the layers with those
// numbers.
struct Extent {
  uint64_t first = 0, last = 0, of = 0;
  std::string text;

  uint64_t scale() const { return of == 0 ? 1 : of; }
  bool Before(const Extent& other) const { return first * other.scale() < other.first * scale(); }
  bool Overlaps(const Extent& other) const {
    return first * other.scale() < other.last * scale() &&
           other.first * scale() < last * other.scale();
  }
  bool Touches(const Extent& next) const { return last * next.scale() == next.first * scale(); }
  bool Equals(const Extent& other) const {
    return first * other.scale() == other.first * scale() &&
           last * other.scale() == other.last * scale();
  }
};

Extent ExtentOf(const ShardRequest& request, const std::string& text) {
  if (request.last_layer != FfnShard::kAllLayers)
    return {request.first_layer, request.last_layer, 0, text};
  return {request.layer_part, uint64_t{request.layer_part} + 1, request.layer_parts, text};
}

absl::Status Bad(const std::string& what) { return absl::InvalidArgumentError(what); }

// Of the workers that hold the same layers.
struct Cut {
  Extent extent;
  uint32_t columns = 1;
  std::set<uint32_t> pieces;
};

absl::Status AddTo(std::vector<Cut>& cuts, const Extent& extent, const ShardRequest& request) {
  for (Cut& cut : cuts) {
    if ((cut.extent.of == 0) != (extent.of == 0)) {
      return Bad(absl::StrCat("layers ", cut.extent.text, " and ", extent.text,
                              " are numbers and parts: use one of the two"));
    }
    if (cut.extent.Equals(extent)) {
      if (cut.columns != request.columns) {
        return Bad(absl::StrCat("layers ", extent.text, " are cut into ", cut.columns, " and into ",
                                request.columns, " pieces of columns"));
      }
      cut.pieces.insert(request.column);
      return absl::OkStatus();
    }
    if (cut.extent.Overlaps(extent)) {
      return Bad(absl::StrCat("layers ", cut.extent.text, " and ", extent.text,
                              " overlap and are not equal"));
    }
  }
  cuts.push_back({extent, request.columns, {request.column}});
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<ShardText>> EvenShards(absl::string_view kind, int workers) {
  std::vector<ShardText> shards;
  if (kind == "replicas") return shards;
  if (kind != "layers" && kind != "columns")
    return Bad(absl::StrCat("'", kind, "' is none of layers, columns and replicas"));
  for (int i = 0; i < workers; ++i) {
    const std::string part = absl::StrCat(i, "/", workers);
    shards.push_back(kind == "layers" ? ShardText{part, "0/1"} : ShardText{"all", part});
  }
  return shards;
}

absl::Status CheckShards(const std::vector<ShardText>& shards, int workers) {
  if (static_cast<size_t>(workers) < shards.size())
    return Bad(absl::StrCat(shards.size(), " shards for ", workers, " workers"));
  std::vector<Cut> cuts;
  for (const ShardText& shard : shards) {
    ASSIGN_OR_RETURN(const ShardRequest request, ParseShardRequest(shard.layers, shard.column));
    RETURN_IF_ERROR(AddTo(cuts, ExtentOf(request, shard.layers), request));
  }
  std::sort(cuts.begin(), cuts.end(),
            [](const Cut& a, const Cut& b) { return a.extent.Before(b.extent); });
  for (size_t i = 0; i < cuts.size(); ++i) {
    const Cut& cut = cuts[i];
    for (uint32_t piece = 0; piece < cut.columns; ++piece) {
      if (cut.pieces.contains(piece)) continue;
      return Bad(absl::StrCat("layers ", cut.extent.text, ": no shard has column ", piece, "/",
                              cut.columns));
    }
    if (i == 0 && cut.extent.first != 0)
      return Bad(absl::StrCat("no shard has the layers before ", cut.extent.text));
    if (i > 0 && !cuts[i - 1].extent.Touches(cut.extent)) {
      return Bad(absl::StrCat("no shard has the layers between ", cuts[i - 1].extent.text, " and ",
                              cut.extent.text));
    }
  }
  if (!cuts.empty() && cuts.back().extent.of != 0 &&
      cuts.back().extent.last != cuts.back().extent.of) {
    return Bad(absl::StrCat("no shard has the layers after ", cuts.back().extent.text));
  }
  return absl::OkStatus();
}

}  // namespace tandem::ctl
