#pragma once

// How much of a trace's time attention and FFN were computed at once. Pure.

#include <absl/types/span.h>

#include "services/ctl/trace/align.h"

namespace tandem::ctl {

// Machine seconds of the aligned clock, over all workers; decode only (a prefill's attention and
// FFN are one span).
struct Overlap {
  double attention_seconds = 0;  // some device computed attention, embeddings or a head
  double ffn_seconds = 0;        // some device computed FFN
  double both_seconds = 0;       // both at the same time
};
Overlap OverlapOf(absl::Span<const WorkerTrace> workers, absl::Span<const WorkerClock> clocks);

}  // namespace tandem::ctl
