#include "scheduler/policy/ffn_group.h"

#include <algorithm>
#include <optional>
#include <tuple>

namespace tandem::policy {
namespace {

// Primaries by seat, as an index into the holders.
using Primaries = std::vector<std::optional<size_t>>;

bool Suspects(const GroupSeat& seat, const WorkerId& holder) {
  return seat.suspected.contains(holder);
}

// Seats keep the primary that still exists and that they do not suspect.
Primaries Keep(absl::Span<const GroupSeat> seats, absl::Span<const WorkerId> holders,
               std::vector<size_t>& assigned) {
  Primaries primaries(seats.size());
  for (size_t s = 0; s < seats.size(); s++) {
    const auto found = std::find(holders.begin(), holders.end(), seats[s].primary);
    if (found == holders.end() || Suspects(seats[s], *found)) continue;
    primaries[s] = found - holders.begin();
    assigned[*primaries[s]]++;
  }
  return primaries;
}

// The others get the least assigned holder, an unsuspected one if there is one.
void Fill(absl::Span<const GroupSeat> seats, absl::Span<const WorkerId> holders,
          Primaries& primaries, std::vector<size_t>& assigned) {
  for (size_t s = 0; s < seats.size(); s++) {
    if (primaries[s].has_value()) continue;
    size_t best = 0;
    const auto rank = [&](size_t h) {
      return std::tuple(Suspects(seats[s], holders[h]), assigned[h]);
    };
    for (size_t h = 1; h < holders.size(); h++) {
      if (rank(h) < rank(best)) best = h;
    }
    primaries[s] = best;
    assigned[best]++;
  }
}

// Moves seats, the highest first, while that makes the assignment more even.
void Balance(absl::Span<const GroupSeat> seats, absl::Span<const WorkerId> holders,
             Primaries& primaries, std::vector<size_t>& assigned) {
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t s = seats.size(); s-- > 0 && !moved;) {
      for (size_t h = 0; h < holders.size() && !moved; h++) {
        if (Suspects(seats[s], holders[h]) || assigned[h] + 1 >= assigned[*primaries[s]]) continue;
        assigned[*primaries[s]]--;
        assigned[h]++;
        primaries[s] = h;
        moved = true;
      }
    }
  }
}

}  // namespace

std::map<WorkerId, std::vector<WorkerId>> AssignFfnGroups(absl::Span<const GroupSeat> seats,
                                                          absl::Span<const WorkerId> holders) {
  std::map<WorkerId, std::vector<WorkerId>> groups;
  if (holders.empty()) {
    for (const GroupSeat& seat : seats) groups[seat.attention];
    return groups;
  }
  std::vector<size_t> assigned(holders.size(), 0);
  Primaries primaries = Keep(seats, holders, assigned);
  Fill(seats, holders, primaries, assigned);
  Balance(seats, holders, primaries, assigned);
  for (size_t s = 0; s < seats.size(); s++) {
    std::vector<WorkerId>& group = groups[seats[s].attention];
    for (size_t i = 0; i < holders.size(); i++)
      group.push_back(holders[(*primaries[s] + i) % holders.size()]);
    std::stable_partition(group.begin(), group.end(),
                          [&](const WorkerId& h) { return !Suspects(seats[s], h); });
  }
  return groups;
}

}  // namespace tandem::policy
