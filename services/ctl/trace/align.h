#pragma once

// The clocks of several workers made one, from the hand-offs that each end has timed. Pure.

#include <absl/types/span.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "services/ctl/trace/worker_trace.h"

namespace tandem::ctl {

// One layer call as both ends saw it: sent by the attention worker, arrived at and answered by the
// FFN worker, its reply taken by the attention worker. Each end's times are its own clock's.
struct Handoff {
  uint32_t attention = 0, ffn = 0;  // indices of the workers
  size_t call = 0, served = 0;      // of their spans
  int64_t sent_ns = 0, arrived_ns = 0, answered_ns = 0, received_ns = 0;

  // What the messages were under way, both together, as far as one can know: whatever the clocks
  // say, and with what either end let them lie.
  int64_t RoundTrip() const { return (received_ns - sent_ns) - (answered_ns - arrived_ns); }
  // What to add to the FFN worker's times for the attention worker's, if both messages took alike
  // (NTP, RFC 5905 section 8); off by at most half the round trip.
  int64_t Offset() const { return ((sent_ns - arrived_ns) + (received_ns - answered_ns)) / 2; }
};

// Calls whose two spans are both in the trace: of equal attention worker, FFN worker, step, layer,
// micro-batch and attempt. One that is there twice at an end (a worker was started anew) counts for
// none, nor does one that came before it was sent.
std::vector<Handoff> MatchHandoffs(absl::Span<const WorkerTrace> workers);

struct WorkerClock {
  int64_t offset_ns = 0;  // add it to the worker's times for the reference's
  int64_t error_ns = 0;   // the offset is true within this
  bool aligned = false;   // with the reference; else it keeps its own clock
};

// By worker. The reference is the first worker with a hand-off to another; from there the workers
// are reached over the pairs with the least round trip (a minimal spanning tree), each pair by its
// quickest hand-off, and the errors add up. Without any hand-off none is aligned. A worker out of
// reach of the reference keeps its own clock.
std::vector<WorkerClock> AlignClocks(size_t workers, absl::Span<const Handoff> handoffs);

}  // namespace tandem::ctl
