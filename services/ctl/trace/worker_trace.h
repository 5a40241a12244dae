#pragma once

// One worker's part of a trace, as `tandemctl trace` holds it.

#include <cstddef>
#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "scheduler/view/worker.h"
#include "tandem/v1/trace.pb.h"

namespace tandem::ctl {

inline constexpr uint32_t kNoWorker = UINT32_MAX;

// v1::TraceSpan in less memory. Times are nanoseconds of the worker's own clock.
struct TracedSpan {
  int64_t begin_ns = 0, end_ns = 0;
  uint64_t step = 0;
  uint32_t layer = 0, micro_batch = 0, attempt = 0, rows = 0, calls = 0;
  uint32_t context_tokens = 0;
  uint32_t peer = kNoWorker;  // index into WorkerTrace::peers
  v1::SpanKind kind = v1::SPAN_KIND_UNSPECIFIED;
  v1::WaitCause cause = v1::WAIT_CAUSE_UNSPECIFIED;
};

struct WorkerTrace {
  std::string worker;
  std::string device;
  std::set<Stage> stages;
  double time_scale = 1;  // of its clock's seconds for one of the device's
  bool emulated = false;
  int64_t started_ns = 0, ended_ns = 0;
  std::vector<std::string> peers;
  std::vector<TracedSpan> spans;
  uint64_t lost = 0;      // overwritten at the worker before they were read
  uint64_t left_out = 0;  // past kMaxSpansOfWorker
};

// 250 MB, and a minute at 65,000 a second.
inline constexpr size_t kMaxSpansOfWorker = 4'000'000;

// The device computes: at most one of these at a time.
inline bool IsCompute(v1::SpanKind kind) {
  return kind == v1::SPAN_KIND_PREFILL || kind == v1::SPAN_KIND_EMBED ||
         kind == v1::SPAN_KIND_ATTENTION || kind == v1::SPAN_KIND_HEAD || kind == v1::SPAN_KIND_FFN;
}

}  // namespace tandem::ctl
