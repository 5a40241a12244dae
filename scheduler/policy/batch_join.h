#pragma once

// Which running sequences are rows of an attention worker's next step.

#include <absl/types/span.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace tandem::policy {

// A running sequence, as the policy sees it.
struct JoinCandidate {
  uint64_t admitted = 0;  // rises with each admission; unique
};

// The oldest admitted first, up to `max_batch`: a sequence that is a row stays one until it ends,
// so that a newer one never slows an older one past the batch limit. Returns indices into
// `candidates`, by ascending admission. Pure.
std::vector<size_t> JoinStep(absl::Span<const JoinCandidate> candidates, uint32_t max_batch);

}  // namespace tandem::policy
