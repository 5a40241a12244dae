#pragma once

// Which FFN workers serve which attention worker, and in which order.

#include <absl/types/span.h>

#include <map>
#include <string>
#include <vector>

#include "scheduler/view/cluster.h"

namespace tandem::policy {

// Every attention worker gets all `holders`. Of each part of a layer the first in the list that is
// up gets the call, so the order says everything:
//   - cuts whose holders cover every layer by themselves stand before the others; of those first
//   the
//     one that most seats use now, then the one with the fewest pieces. So every attention worker
//     computes in one numerics class while it can (DESIGN section 8.1), a cut that is complete
//     again takes nobody back, and another cut has its turn only when nobody of this one is left;
//   - within a cut the seat's primary of each shard, in shard order but beginning with the layers
//   of
//     its turn, then the further replicas, in ascending cyclic order after the primary, with the
//     suspected ones last. Seat s of a cut into y ranges of layers has turn s mod y: where it
//     begins tells it its phase (policy/stagger.h), and spreads layers that two shards hold.
// Among the replicas of a shard primaries are balanced to within one, as far as suspicions allow,
// and stay where they are unless balance asks for a move; then the highest attention workers move
// first. `seats` and `holders` in ascending order.
// Pure: equal arguments give equal answers. Safe from any thread.
std::map<WorkerId, std::vector<WorkerId>> AssignFfnGroups(absl::Span<const GroupSeat> seats,
                                                          absl::Span<const HolderView> holders,
                                                          uint32_t layers);

// Empty when some cut of every layer is held in all its pieces; else which layers are not, and what
// the most complete cut of them lacks: "layers [0, 15)", "layers [15, 30) column 1/2", joined by
// ", ".
std::string UncoveredLayers(absl::Span<const FfnShard> shards, uint32_t layers);

}  // namespace tandem::policy
