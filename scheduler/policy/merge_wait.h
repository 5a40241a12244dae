#pragma once

// How long an FFN worker holds a layer call back so that rows of another attention worker may join
// it (PROTOCOL section 6).

#include <absl/types/span.h>

#include <cstdint>

#include "scheduler/base/time.h"

namespace tandem::policy {

// A micro-batch of another sender whose last call here was answered and whose next one has not
// come.
struct ExpectedCall {
  uint32_t layer = 0;  // of its next call: the one after the layer that was answered
  Instant at;  // answered then, plus the sender's usual time from an answer to its next call
};

// The oldest queued call.
struct MergeView {
  uint32_t layer = 0;
  uint32_t rows = 0;
  Instant arrival;
  bool other_rows_queued = false;           // of any layer
  absl::Span<const ExpectedCall> expected;  // of other senders
};

// The call is computed from this instant on, at the latest `max_wait` after its arrival; `arrival`:
// at once. It waits only for a sender whose previous call was the layer before and that is expected
// within the bound of the arrival, before or after: one that is later than that has nothing to
// send. Nothing waits while other rows are queued, and zero rows never do. So with one sender
// nothing ever waits. Pure.
Instant MergeUntil(const MergeView& call, Duration max_wait);

}  // namespace tandem::policy
