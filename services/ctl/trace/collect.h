#pragma once

// What a worker says of its trace, checked message by message. Pure.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <utility>

#include "services/ctl/trace/worker_trace.h"

namespace tandem::ctl {

// Bounds of what is believed; past them kInvalidArgument with the number.
inline constexpr size_t kMaxTraceNameBytes = 256;
inline constexpr size_t kMaxTracePeers = 65536;
inline constexpr size_t kMaxMessageSpans = 65536;
inline constexpr uint32_t kMaxTraceLayers = 1 << 16;
// From the trace's start to a span's begin or end, either way: a device may be behind its machine.
inline constexpr int64_t kMaxSpanDistanceNs = int64_t{3600} * 1'000'000'000;
inline constexpr int64_t kMaxClockNs = int64_t{1} << 60;

class TraceCollector {
 public:
  // `worker`: who is asked; another one's trace is refused.
  explicit TraceCollector(std::string worker) { trace_.worker = std::move(worker); }

  // kInvalidArgument: out of order, or out of its range; the collector is of no use afterwards.
  absl::Status Take(const v1::TraceMessage& message);
  // Once the stream has ended well. kDataLoss: before the worker had said its last.
  absl::StatusOr<WorkerTrace> Finish();
  // Of a stream that is broken off on purpose.
  const WorkerTrace& so_far() const { return trace_; }
  WorkerTrace TakeSoFar() { return std::move(trace_); }

 private:
  absl::Status TakeStart(const v1::TraceStart& start);
  absl::Status TakeSpans(const v1::TraceSpans& spans);
  absl::Status TakeSpan(const v1::TraceSpan& span);
  absl::Status TakeEnd(const v1::TraceEnd& end);

  WorkerTrace trace_;
  bool started_ = false, ended_ = false;
};

}  // namespace tandem::ctl
