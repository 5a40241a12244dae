#pragma once

// Who gives up its KV when a running sequence needs a block and none is free.

#include <absl/types/span.h>

#include <cstddef>
#include <cstdint>
#include <optional>

namespace tandem::policy {

// A sequence that holds KV, running or reserved.
struct HeldSequence {
  uint64_t admitted = 0;  // rises with each admission; unique
};

// The newest of `held`, which may be the one in need itself; never the oldest, so that it goes on
// and there is progress. Returns an index into `held`, or nothing when the oldest alone is left.
// Pure. PROTOCOL section 4.
std::optional<size_t> PreemptionVictim(absl::Span<const HeldSequence> held);

}  // namespace tandem::policy
