#pragma once

// Which worker prefills a prompt for an attention worker that does not do it itself.

#include <absl/types/span.h>

#include <optional>

#include "scheduler/view/cluster.h"

namespace tandem::policy {

// The worker with the smallest used share of its slots; ties: the lower WorkerId. nullopt: no slot
// is free. Pure: equal arguments give equal answers. Safe from any thread.
std::optional<WorkerId> PlacePrefill(absl::Span<const PrefillView> workers);

}  // namespace tandem::policy
