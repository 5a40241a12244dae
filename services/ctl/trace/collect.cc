#include "services/ctl/trace/collect.h"

#include <absl/strings/str_cat.h>

#include <cmath>

#include "scheduler/base/status.h"
#include "services/runtime/proto_words.h"

namespace tandem::ctl {
namespace {

constexpr double kMaxTimeScale = 1e9;

absl::Status CheckName(const char* what, const std::string& name) {
  if (name.size() <= kMaxTraceNameBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a trace's ", what, " of ", name.size(),
                                                 " bytes: at most ", kMaxTraceNameBytes));
}

absl::Status CheckClock(const char* what, int64_t ns) {
  if (ns >= 0 && ns <= kMaxClockNs) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("a trace's ", what, " at ", ns, " ns"));
}

}  // namespace

absl::Status TraceCollector::Take(const v1::TraceMessage& message) {
  if (message.has_start() == started_ || ended_) {
    return absl::InvalidArgumentError(ended_     ? "a message after a trace's end"
                                      : started_ ? "a trace that starts twice"
                                                 : "a trace that does not say its start first");
  }
  switch (message.message_case()) {
    case v1::TraceMessage::kStart:
      return TakeStart(message.start());
    case v1::TraceMessage::kSpans:
      return TakeSpans(message.spans());
    case v1::TraceMessage::kEnd:
      return TakeEnd(message.end());
    case v1::TraceMessage::MESSAGE_NOT_SET:
      return absl::OkStatus();  // of a newer worker
  }
  return absl::OkStatus();
}

absl::Status TraceCollector::TakeStart(const v1::TraceStart& start) {
  if (start.worker_id() != trace_.worker) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the trace is of another worker: ", start.worker_id().substr(0, kMaxTraceNameBytes)));
  }
  RETURN_IF_ERROR(CheckName("device", start.device()));
  RETURN_IF_ERROR(CheckClock("start", start.started_at_nanoseconds()));
  if (!(start.time_scale() >= 0 && start.time_scale() <= kMaxTimeScale)) {
    return absl::InvalidArgumentError(absl::StrCat("a trace's time_scale of ", start.time_scale()));
  }
  for (const int stage : start.stages()) {
    ASSIGN_OR_RETURN(const Stage known, ToStage(stage));
    trace_.stages.insert(known);
  }
  if (trace_.stages.empty()) return absl::InvalidArgumentError("a trace without stages");
  trace_.device = start.device();
  trace_.emulated = start.time_scale() > 0;
  trace_.time_scale = trace_.emulated ? start.time_scale() : 1;
  trace_.started_ns = start.started_at_nanoseconds();
  started_ = true;
  return absl::OkStatus();
}

absl::Status TraceCollector::TakeSpans(const v1::TraceSpans& spans) {
  if (static_cast<size_t>(spans.spans_size()) > kMaxMessageSpans) {
    return absl::InvalidArgumentError(
        absl::StrCat(spans.spans_size(), " spans in one message exceed ", kMaxMessageSpans));
  }
  if (trace_.peers.size() + spans.peers_size() > kMaxTracePeers) {
    return absl::InvalidArgumentError(absl::StrCat(trace_.peers.size() + spans.peers_size(),
                                                   " peers of a trace exceed ", kMaxTracePeers));
  }
  for (const std::string& peer : spans.peers()) {
    RETURN_IF_ERROR(CheckName("peer", peer));
    trace_.peers.push_back(peer);
  }
  trace_.lost += spans.lost();
  for (const v1::TraceSpan& span : spans.spans()) RETURN_IF_ERROR(TakeSpan(span));
  return absl::OkStatus();
}

absl::Status TraceCollector::TakeSpan(const v1::TraceSpan& span) {
  const int64_t begin = span.begin_nanoseconds(), end = span.end_nanoseconds();
  RETURN_IF_ERROR(CheckClock("span", begin));
  RETURN_IF_ERROR(CheckClock("span", end));
  if (end < begin || std::abs(begin - trace_.started_ns) > kMaxSpanDistanceNs ||
      std::abs(end - trace_.started_ns) > kMaxSpanDistanceNs) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a span from ", begin, " to ", end, " ns in a trace from ", trace_.started_ns, " ns"));
  }
  if (!v1::SpanKind_IsValid(span.kind()) || span.kind() == v1::SPAN_KIND_UNSPECIFIED)
    return absl::InvalidArgumentError(absl::StrCat("a span of kind ", span.kind()));
  const bool waits = span.kind() == v1::SPAN_KIND_WAIT;
  if (waits != (span.cause() != v1::WAIT_CAUSE_UNSPECIFIED) ||
      !v1::WaitCause_IsValid(span.cause())) {
    return absl::InvalidArgumentError(
        absl::StrCat("a span of kind ", span.kind(), " with cause ", span.cause()));
  }
  if (span.layer() >= kMaxTraceLayers)
    return absl::InvalidArgumentError(absl::StrCat("a span of layer ", span.layer()));
  if (span.has_peer() && span.peer() >= trace_.peers.size()) {
    return absl::InvalidArgumentError(
        absl::StrCat("a span of peer ", span.peer(), " of ", trace_.peers.size()));
  }
  if (trace_.spans.size() >= kMaxSpansOfWorker) {
    trace_.left_out++;
    return absl::OkStatus();
  }
  TracedSpan& kept = trace_.spans.emplace_back();
  kept.begin_ns = begin;
  kept.end_ns = end;
  kept.step = span.step();
  kept.layer = span.layer();
  kept.micro_batch = span.micro_batch();
  kept.attempt = span.attempt();
  kept.rows = span.rows();
  kept.context_tokens = span.context_tokens();
  kept.calls = span.calls();
  kept.peer = span.has_peer() ? span.peer() : kNoWorker;
  kept.kind = span.kind();
  kept.cause = span.cause();
  return absl::OkStatus();
}

absl::Status TraceCollector::TakeEnd(const v1::TraceEnd& end) {
  RETURN_IF_ERROR(CheckClock("end", end.ended_at_nanoseconds()));
  if (end.ended_at_nanoseconds() < trace_.started_ns) {
    return absl::InvalidArgumentError(absl::StrCat("a trace from ", trace_.started_ns, " to ",
                                                   end.ended_at_nanoseconds(), " ns"));
  }
  trace_.ended_ns = end.ended_at_nanoseconds();
  ended_ = true;
  return absl::OkStatus();
}

absl::StatusOr<WorkerTrace> TraceCollector::Finish() {
  if (!ended_) return absl::DataLossError("the trace ended before the worker had said its last");
  return std::move(trace_);
}

}  // namespace tandem::ctl
