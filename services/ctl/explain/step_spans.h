#pragma once

// The spans of one decode step, out of everything that workers did meanwhile. Pure.

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <cstdint>
#include <vector>

#include "services/ctl/trace/align.h"
#include "services/ctl/trace/worker_trace.h"

namespace tandem::ctl {

// One piece of an FFN call: its worker holds some of the columns, or all. Nanoseconds from the
// step's start, by the attention worker's clock.
struct FfnPiece {
  uint32_t worker = 0;               // index into the traces
  uint32_t rows = 0;                 // that it computed in one go, of other calls too
  uint32_t calls = 1;                // that were merged into it
  int64_t begin_ns = 0, end_ns = 0;  // it computed
  // Of a remote worker: the call left, arrived; the answer left, arrived.
  bool remote = false;
  int64_t sent_ns = 0, arrived_ns = 0, answered_ns = 0, received_ns = 0;
  int64_t clock_error_ns = 0;

  int64_t LastNs() const { return remote ? received_ns : end_ns; }
};

struct DeviceSpan {
  int64_t begin_ns = 0, end_ns = 0;
  uint32_t rows = 0, context_tokens = 0;
};

// One layer, or one end of the step, of one micro-batch.
struct LayerSpans {
  DeviceSpan attention;
  std::vector<FfnPiece> ffn;  // by worker
};

struct StepSpans {
  uint32_t attention_worker = 0;
  int64_t length_ns = 0;
  std::vector<DeviceSpan> embed, head;          // by micro-batch
  std::vector<std::vector<LayerSpans>> layers;  // [layers, micro-batches]
};

// `clocks` and `handoffs` are those of `workers`. kNotFound: the worker told of no such step;
// kDataLoss: a part of it is missing, by name.
absl::StatusOr<StepSpans> PickStep(absl::Span<const WorkerTrace> workers,
                                   absl::Span<const WorkerClock> clocks,
                                   absl::Span<const Handoff> handoffs, uint32_t attention_worker,
                                   uint64_t step, uint32_t layers);

}  // namespace tandem::ctl
