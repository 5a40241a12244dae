#pragma once

// Which FFN workers serve which attention worker, and in which order.

#include <absl/types/span.h>

#include <map>
#include <vector>

#include "scheduler/view/cluster.h"

namespace tandem::policy {

// Every attention worker gets all `holders` (each holds all layers): first its primary, then the
// others in ascending cyclic order after it, with the suspected ones last. Primaries are balanced
// to within one, as far as suspicions allow, and stay where they are unless balance asks for a
// move; then the highest attention workers move first. `seats` and `holders` in ascending order.
// Pure: equal arguments give equal answers. Safe from any thread.
std::map<WorkerId, std::vector<WorkerId>> AssignFfnGroups(absl::Span<const GroupSeat> seats,
                                                          absl::Span<const WorkerId> holders);

}  // namespace tandem::policy
