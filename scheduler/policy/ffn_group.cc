#include "scheduler/policy/ffn_group.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <optional>
#include <set>
#include <tuple>
#include <utility>

namespace tandem::policy {
namespace {

// Primaries by seat, as an index into the replicas of one shard.
using Primaries = std::vector<std::optional<size_t>>;

bool Suspects(const GroupSeat& seat, const WorkerId& holder) {
  return seat.suspected.contains(holder);
}

// Seats keep the primary that still exists and that they do not suspect: of the replicas the first
// in the seat's list.
Primaries Keep(absl::Span<const GroupSeat> seats, absl::Span<const WorkerId> replicas,
               std::vector<size_t>& assigned) {
  Primaries primaries(seats.size());
  for (size_t s = 0; s < seats.size(); s++) {
    const std::vector<WorkerId>& current = seats[s].current;
    const auto first =
        std::find_first_of(current.begin(), current.end(), replicas.begin(), replicas.end());
    if (first == current.end() || Suspects(seats[s], *first)) continue;
    primaries[s] = std::find(replicas.begin(), replicas.end(), *first) - replicas.begin();
    assigned[*primaries[s]]++;
  }
  return primaries;
}

// The others get the least assigned replica, an unsuspected one if there is one.
void Fill(absl::Span<const GroupSeat> seats, absl::Span<const WorkerId> replicas,
          Primaries& primaries, std::vector<size_t>& assigned) {
  for (size_t s = 0; s < seats.size(); s++) {
    if (primaries[s].has_value()) continue;
    size_t best = 0;
    const auto rank = [&](size_t h) {
      return std::tuple(Suspects(seats[s], replicas[h]), assigned[h]);
    };
    for (size_t h = 1; h < replicas.size(); h++) {
      if (rank(h) < rank(best)) best = h;
    }
    primaries[s] = best;
    assigned[best]++;
  }
}

// Moves seats, the highest first, while that makes the assignment more even.
void Balance(absl::Span<const GroupSeat> seats, absl::Span<const WorkerId> replicas,
             Primaries& primaries, std::vector<size_t>& assigned) {
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t s = seats.size(); s-- > 0 && !moved;) {
      for (size_t h = 0; h < replicas.size() && !moved; h++) {
        if (Suspects(seats[s], replicas[h]) || assigned[h] + 1 >= assigned[*primaries[s]]) continue;
        assigned[*primaries[s]]--;
        assigned[h]++;
        primaries[s] = h;
        moved = true;
      }
    }
  }
}

// Of each seat the replicas of one shard, the primary first.
std::vector<std::vector<WorkerId>> OrderReplicas(absl::Span<const GroupSeat> seats,
                                                 absl::Span<const WorkerId> replicas) {
  std::vector<size_t> assigned(replicas.size(), 0);
  Primaries primaries = Keep(seats, replicas, assigned);
  Fill(seats, replicas, primaries, assigned);
  Balance(seats, replicas, primaries, assigned);
  std::vector<std::vector<WorkerId>> orders(seats.size());
  for (size_t s = 0; s < seats.size(); s++) {
    for (size_t i = 0; i < replicas.size(); i++)
      orders[s].push_back(replicas[(*primaries[s] + i) % replicas.size()]);
  }
  return orders;
}

// Begins the primaries, which stand in shard order, with the range of layers of the seat's turn.
void Rotate(std::vector<WorkerId>& primaries, absl::Span<const size_t> ranges, size_t seat) {
  const auto begin = static_cast<ptrdiff_t>(ranges[seat % ranges.size()]);
  std::rotate(primaries.begin(), primaries.begin() + begin, primaries.end());
}

// What a layer lacks of the cut that is nearest to complete: nullopt for nothing, an empty text
// when no piece of it is held at all.
std::optional<std::string> Lacks(absl::Span<const FfnShard> shards, uint32_t layer) {
  std::map<uint32_t, std::set<uint32_t>> cuts;  // pieces held, by the number of pieces
  for (const FfnShard& shard : shards) {
    if (shard.HoldsLayer(layer)) cuts[shard.columns].insert(shard.column);
  }
  size_t fewest = kMaxShardColumns + 1;
  std::string lacks;
  for (const auto& [columns, pieces] : cuts) {
    const size_t missing = columns - pieces.size();
    if (missing == 0) return std::nullopt;
    if (missing >= fewest) continue;
    fewest = missing;
    lacks.clear();
    for (uint32_t piece = 0; piece < columns; piece++) {
      if (!pieces.contains(piece)) absl::StrAppend(&lacks, " column ", piece, "/", columns);
    }
  }
  return lacks;
}

// Cuts in the order of preference.
std::vector<uint32_t> OrderCuts(absl::Span<const GroupSeat> seats,
                                absl::Span<const HolderView> holders, uint32_t layers) {
  struct Cut {
    std::vector<FfnShard> shards;
    bool complete = false;
    size_t users = 0;  // seats
  };
  std::map<uint32_t, Cut> cuts;
  std::map<WorkerId, uint32_t> cut_of;
  for (const HolderView& holder : holders) {
    cuts[holder.shard.columns].shards.push_back(holder.shard);
    cut_of[holder.id] = holder.shard.columns;
  }
  for (const GroupSeat& seat : seats) {
    const auto first = std::find_if(seat.current.begin(), seat.current.end(),
                                    [&](const WorkerId& id) { return cut_of.contains(id); });
    if (first != seat.current.end()) cuts[cut_of[*first]].users++;
  }
  std::vector<uint32_t> order;
  for (auto& [columns, cut] : cuts) {
    cut.complete = UncoveredLayers(cut.shards, layers).empty();
    order.push_back(columns);
  }
  std::stable_sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return std::tuple(cuts[a].complete, cuts[a].users) >
           std::tuple(cuts[b].complete, cuts[b].users);
  });
  return order;
}

}  // namespace

std::map<WorkerId, std::vector<WorkerId>> AssignFfnGroups(absl::Span<const GroupSeat> seats,
                                                          absl::Span<const HolderView> holders,
                                                          uint32_t layers) {
  std::map<WorkerId, std::vector<WorkerId>> groups;
  for (const GroupSeat& seat : seats) groups[seat.attention];
  std::map<FfnShard, std::vector<WorkerId>> replicas;
  for (const HolderView& holder : holders) replicas[holder.shard].push_back(holder.id);
  for (const uint32_t columns : OrderCuts(seats, holders, layers)) {
    std::vector<std::vector<WorkerId>> primaries(seats.size()), others(seats.size());
    std::vector<size_t> ranges;  // where in `primaries` each range of layers begins
    uint32_t first_layer = FfnShard::kAllLayers;
    for (const auto& [shard, ids] : replicas) {
      if (shard.columns != columns) continue;
      if (std::exchange(first_layer, shard.first_layer) != shard.first_layer)
        ranges.push_back(primaries.empty() ? 0 : primaries.front().size());
      const std::vector<std::vector<WorkerId>> orders = OrderReplicas(seats, ids);
      for (size_t s = 0; s < seats.size(); s++) {
        primaries[s].push_back(orders[s].front());
        others[s].insert(others[s].end(), orders[s].begin() + 1, orders[s].end());
      }
    }
    for (size_t s = 0; s < seats.size(); s++) {
      std::vector<WorkerId> cut = std::move(primaries[s]);
      Rotate(cut, ranges, s);
      cut.insert(cut.end(), others[s].begin(), others[s].end());
      std::stable_partition(cut.begin(), cut.end(),
                            [&](const WorkerId& h) { return !Suspects(seats[s], h); });
      std::vector<WorkerId>& group = groups[seats[s].attention];
      group.insert(group.end(), cut.begin(), cut.end());
    }
  }
  return groups;
}

std::string UncoveredLayers(absl::Span<const FfnShard> shards, uint32_t layers) {
  // Between two of these every layer is held alike.
  std::set<uint32_t> borders = {0, layers};
  for (const FfnShard& shard : shards) {
    borders.insert(std::min(shard.first_layer, layers));
    borders.insert(std::min(shard.last_layer, layers));
  }
  struct Gap {
    uint32_t first, last;
    std::string lacks;
  };
  std::vector<Gap> gaps;
  for (auto border = borders.begin(); std::next(border) != borders.end(); ++border) {
    const std::optional<std::string> lacks = Lacks(shards, *border);
    if (!lacks.has_value()) continue;
    if (!gaps.empty() && gaps.back().last == *border && gaps.back().lacks == *lacks) {
      gaps.back().last = *std::next(border);
    } else {
      gaps.push_back({*border, *std::next(border), *lacks});
    }
  }
  return absl::StrJoin(gaps, ", ", [](std::string* out, const Gap& gap) {
    absl::StrAppend(out, "layers [", gap.first, ", ", gap.last, ")", gap.lacks);
  });
}

}  // namespace tandem::policy
