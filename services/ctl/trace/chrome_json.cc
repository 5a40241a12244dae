#include "services/ctl/trace/chrome_json.h"

#include <absl/strings/ascii.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/strip.h>
#include <boost/json.hpp>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <tuple>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/trace/tracks.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;

constexpr size_t kFlushBytes = 1 << 16;

// Thread ids are unique in the file and no process's: some readers take an equal one for its main
// thread.
constexpr uint32_t kThreadsOfProcess = 10'000;
static_assert(kThreadsOfProcess > kMaxLanes + 100);

enum class EventKind : uint8_t { kSpan, kFlowStart, kFlowEnd };

// What is written, in order; times are nanoseconds of the devices' time since the trace's first.
struct Event {
  int64_t begin_ns = 0, end_ns = 0;
  uint32_t worker = 0;
  EventKind kind = EventKind::kSpan;
  size_t span = 0;  // of the worker
  size_t flow = 0;
};

std::string Word(absl::string_view enum_name, absl::string_view prefix) {
  return absl::AsciiStrToLower(absl::StripPrefix(enum_name, prefix));
}

std::string WaitWords(v1::WaitCause cause) {
  return absl::StrCat(cause <= v1::WAIT_CAUSE_BATCH_WAIT ? "stall " : "idle ",
                      Word(v1::WaitCause_Name(cause), "WAIT_CAUSE_"));
}

// Viewers colour by name without its numbers.
std::string NameOf(const TracedSpan& span) {
  switch (span.kind) {
    case v1::SPAN_KIND_STEP:
      return absl::StrCat("step ", span.step);
    case v1::SPAN_KIND_PREFILL:
      return absl::StrCat("prefill L", span.layer);
    case v1::SPAN_KIND_EMBED:
      return absl::StrCat("embed mb ", span.micro_batch);
    case v1::SPAN_KIND_ATTENTION:
      return absl::StrCat("attention L", span.layer, " mb ", span.micro_batch);
    case v1::SPAN_KIND_HEAD:
      return absl::StrCat("head mb ", span.micro_batch);
    case v1::SPAN_KIND_FFN:
      return absl::StrCat("ffn L", span.layer, " mb ", span.micro_batch);
    case v1::SPAN_KIND_A2F:
      return absl::StrCat("A2F/F2A L", span.layer);
    case v1::SPAN_KIND_SERVED:
      return absl::StrCat("served L", span.layer);
    case v1::SPAN_KIND_KV_SENT:
      return absl::StrCat("KV L", span.layer);
    default:
      return WaitWords(span.cause);
  }
}

json::object ArgsOf(const WorkerTrace& worker, const TracedSpan& span) {
  json::object args;
  if (span.kind == v1::SPAN_KIND_WAIT) return args;
  const bool has_step = span.kind != v1::SPAN_KIND_KV_SENT;
  const bool has_layer = span.kind != v1::SPAN_KIND_STEP && span.kind != v1::SPAN_KIND_EMBED &&
                         span.kind != v1::SPAN_KIND_HEAD;
  const bool has_micro_batch =
      span.kind != v1::SPAN_KIND_STEP && span.kind != v1::SPAN_KIND_PREFILL && has_step;
  if (has_step) args[span.kind == v1::SPAN_KIND_PREFILL ? "chunk" : "step"] = span.step;
  if (has_layer) args["layer"] = span.layer;
  if (has_micro_batch) args["micro_batch"] = span.micro_batch;
  if (span.kind != v1::SPAN_KIND_STEP) args["rows"] = span.rows;
  if (span.kind == v1::SPAN_KIND_FFN) args["calls"] = span.calls;
  if (span.attempt > 0) args["attempt"] = span.attempt;
  if (span.peer < worker.peers.size()) args["peer"] = worker.peers[span.peer];
  return args;
}

class Writer {
 public:
  Writer(absl::Span<const WorkerTrace> workers, absl::Span<const WorkerClock> clocks,
         absl::Span<const Handoff> handoffs, const TextSink& sink)
      : workers_(workers), clocks_(clocks), handoffs_(handoffs), sink_(sink) {
    for (const WorkerTrace& worker : workers) tracks_.push_back(TracksOf(worker));
    for (size_t i = 0; i < workers.size(); i++) {
      for (const TracedSpan& span : workers[i].spans)
        origin_ns_ = std::min(origin_ns_, span.begin_ns + clocks[i].offset_ns);
    }
  }

  absl::Status Write() {
    WriteHead();
    for (uint32_t i = 0; i < workers_.size(); i++) WriteNames(i);
    for (const Event& event : Events()) {
      event.kind == EventKind::kSpan ? WriteSpan(event) : WriteFlow(event);
      if (text_.size() >= kFlushBytes) RETURN_IF_ERROR(Flush());
    }
    absl::StrAppend(&text_, "\n]}\n");
    return Flush();
  }

 private:
  // Monotonic in `at_ns`, so rounding makes no overlap; saturates at 146 years.
  int64_t DeviceNs(uint32_t worker, int64_t at_ns) const {
    const double machine_ns = static_cast<double>(at_ns + clocks_[worker].offset_ns - origin_ns_);
    return std::llround(std::min(machine_ns / workers_[worker].time_scale, 0x1p62));
  }

  std::vector<Event> Events() const {
    std::vector<Event> events;
    for (uint32_t i = 0; i < workers_.size(); i++) {
      for (size_t s = 0; s < workers_[i].spans.size(); s++) {
        const TracedSpan& span = workers_[i].spans[s];
        events.push_back(
            {DeviceNs(i, span.begin_ns), DeviceNs(i, span.end_ns), i, EventKind::kSpan, s, 0});
      }
    }
    for (size_t flow = 0; flow < handoffs_.size(); flow++) {
      const Handoff& handoff = handoffs_[flow];
      const int64_t sent = DeviceNs(handoff.attention, handoff.sent_ns);
      const int64_t arrived = DeviceNs(handoff.ffn, handoff.arrived_ns);
      events.push_back({sent, sent, handoff.attention, EventKind::kFlowStart, handoff.call, flow});
      events.push_back({arrived, arrived, handoff.ffn, EventKind::kFlowEnd, handoff.served, flow});
    }
    // At one time the longer span first, which may contain the other; a flow after its span.
    std::sort(events.begin(), events.end(), [](const Event& a, const Event& b) {
      return std::tuple(a.begin_ns, a.kind, -a.end_ns, a.worker, a.span) <
             std::tuple(b.begin_ns, b.kind, -b.end_ns, b.worker, b.span);
    });
    return events;
  }

  void WriteHead() {
    json::array workers;
    bool emulated = false;
    for (size_t i = 0; i < workers_.size(); i++) {
      const WorkerTrace& worker = workers_[i];
      emulated = emulated || worker.emulated;
      workers.push_back({{"worker", worker.worker},
                         {"device", worker.device},
                         {"time_scale", worker.time_scale},
                         {"clock_offset_ns", clocks_[i].offset_ns},
                         {"clock_error_ns", clocks_[i].error_ns},
                         {"clock_aligned", clocks_[i].aligned},
                         {"spans", worker.spans.size()},
                         {"spans_lost", worker.lost},
                         {"spans_left_out", worker.left_out}});
    }
    const json::object other = {
        {"time",
         emulated ? "the emulated devices': machine time over time_scale" : "the machine's"},
        {"workers", std::move(workers)}};
    absl::StrAppend(&text_, "{\"displayTimeUnit\":\"ns\",\"otherData\":", json::serialize(other),
                    ",\"traceEvents\":[");
  }

  void WriteNames(uint32_t i) {
    const WorkerTrace& worker = workers_[i];
    std::string name = worker.worker;
    if (!worker.device.empty()) absl::StrAppend(&name, " (", worker.device, ")");
    WriteMetadata(i, 0, "process_name", {{"name", name}});
    WriteMetadata(i, 0, "process_sort_index", {{"sort_index", i}});
    for (const Track& track : tracks_[i].tracks) {
      WriteMetadata(i, track.id, "thread_name", {{"name", track.name}});
      WriteMetadata(i, track.id, "thread_sort_index", {{"sort_index", track.id}});
    }
  }

  void WriteMetadata(uint32_t worker, uint32_t thread, absl::string_view name,
                     const json::object& args) {
    Begin();
    absl::StrAppend(&text_, "{\"ph\":\"M\",\"pid\":", worker + 1,
                    ",\"tid\":", ThreadOf(worker, thread), ",\"ts\":0,\"name\":\"", name,
                    "\",\"args\":", json::serialize(args), "}");
  }

  void WriteSpan(const Event& event) {
    const WorkerTrace& worker = workers_[event.worker];
    const TracedSpan& span = worker.spans[event.span];
    Begin();
    absl::StrAppend(&text_, "{\"ph\":\"X\",\"name\":\"", NameOf(span), "\",\"cat\":\"",
                    Word(v1::SpanKind_Name(span.kind), "SPAN_KIND_"), "\",");
    AppendPlace(event);
    absl::StrAppend(&text_, ",\"dur\":");
    AppendMicroseconds(event.end_ns - event.begin_ns);
    absl::StrAppend(&text_, ",\"args\":", json::serialize(ArgsOf(worker, span)), "}");
  }

  void WriteFlow(const Event& event) {
    Begin();
    absl::StrAppend(&text_, "{\"ph\":\"",
                    event.kind == EventKind::kFlowStart ? "s\"" : "f\",\"bp\":\"e\"",
                    ",\"name\":\"handoff\",\"cat\":\"handoff\",\"id\":", event.flow + 1, ",");
    AppendPlace(event);
    absl::StrAppend(&text_, "}");
  }

  void AppendPlace(const Event& event) {
    const Tracks& tracks = tracks_[event.worker];
    absl::StrAppend(&text_, "\"pid\":", event.worker + 1, ",\"tid\":",
                    ThreadOf(event.worker, tracks.tracks[tracks.of_span[event.span]].id),
                    ",\"ts\":");
    AppendMicroseconds(event.begin_ns);
  }

  static uint32_t ThreadOf(uint32_t worker, uint32_t track) {
    return (worker + 1) * kThreadsOfProcess + track;
  }

  void AppendMicroseconds(int64_t ns) {
    absl::StrAppendFormat(&text_, "%d.%03d", ns / 1000, ns % 1000);
  }

  void Begin() {
    absl::StrAppend(&text_, first_ ? "\n" : ",\n");
    first_ = false;
  }

  absl::Status Flush() {
    const absl::Status status = sink_(text_);
    text_.clear();
    return status;
  }

  const absl::Span<const WorkerTrace> workers_;
  const absl::Span<const WorkerClock> clocks_;
  const absl::Span<const Handoff> handoffs_;
  const TextSink& sink_;
  std::vector<Tracks> tracks_;  // by worker
  int64_t origin_ns_ = std::numeric_limits<int64_t>::max();
  std::string text_;
  bool first_ = true;
};

}  // namespace

absl::Status WriteChromeTrace(absl::Span<const WorkerTrace> workers,
                              absl::Span<const WorkerClock> clocks,
                              absl::Span<const Handoff> handoffs, const TextSink& sink) {
  return Writer(workers, clocks, handoffs, sink).Write();
}

}  // namespace tandem::ctl
