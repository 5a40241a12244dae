#include "workers/rpc/trace_service.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "services/runtime/proto_words.h"
#include "services/runtime/server_stream.h"

namespace tandem {
namespace {

// How long a reader may take for its request, and for the rest when the trace has ended.
constexpr Duration kReaderPatience = Duration::Seconds(10);
constexpr size_t kMaxQueuedMessages = 64;

// The numbers on the wire are the enums' own.
static_assert(static_cast<int>(SpanKind::kStep) + 1 == v1::SPAN_KIND_STEP);
static_assert(static_cast<int>(SpanKind::kFfn) + 1 == v1::SPAN_KIND_FFN);
static_assert(static_cast<int>(kLastSpanKind) + 1 == v1::SPAN_KIND_WAIT);
static_assert(static_cast<int>(ledger::Cause::kHandoff) == v1::WAIT_CAUSE_HANDOFF);
static_assert(static_cast<int>(ledger::Cause::kNoWork) == v1::WAIT_CAUSE_NO_WORK);
static_assert(static_cast<int>(ledger::Cause::kDown) == v1::WAIT_CAUSE_DOWN);

void ToProto(const Span& span, v1::TraceSpan* out) {
  out->set_kind(static_cast<v1::SpanKind>(static_cast<int>(span.kind) + 1));
  out->set_begin_nanoseconds(span.begin.nanoseconds());
  out->set_end_nanoseconds(span.end.nanoseconds());
  out->set_step(span.step);
  out->set_layer(span.layer);
  out->set_micro_batch(span.micro_batch);
  out->set_attempt(span.attempt);
  out->set_rows(span.rows);
  out->set_calls(span.calls);
  if (span.peer != kNoPeer) out->set_peer(span.peer);
  out->set_cause(static_cast<v1::WaitCause>(span.cause));
  out->set_context_tokens(span.context_tokens);
}

}  // namespace

// One reader. The alarm's and gRPC's threads take turns by `mu_`, under which alone the log is
// read: after OnGone, which the service waits for, nobody touches it.
class TraceService::Stream final : public ServerStream<v1::TraceRequest, v1::TraceMessage> {
 public:
  Stream(ServerStreamOptions options, TraceService& service)
      : ServerStream(std::move(options)), service_(service), time_(service.time_) {}

  void AwaitRequest() { EndUnlessDone(absl::DeadlineExceededError("no trace request came")); }

 private:
  using Messages = std::vector<v1::TraceMessage>;

  bool OnMessage(v1::TraceRequest& request) override {
    const absl::Status taken = Take(request.seconds());
    if (!taken.ok()) {
      EndNow(taken, /*cancel_write=*/false);
      EndUnlessDone(taken);
    }
    return taken.ok();
  }

  absl::Status Take(double seconds) TANDEM_EXCLUDES(mu_) {
    // Not the other way round: NaN compares false.
    if (!(seconds > 0 && seconds <= kMaxTraceSeconds)) {
      return absl::InvalidArgumentError(
          absl::StrCat("a trace of ", seconds, " s: above 0 to ", kMaxTraceSeconds, " s"));
    }
    MutexLock lock(mu_);
    if (requested_) return absl::InvalidArgumentError("a second trace request");
    if (gone_) return absl::OkStatus();
    requested_ = true;
    started_ = time_.Now();
    ends_ = started_ + Duration::FromSeconds(seconds);
    mark_ = service_.log_.ring().written();
    ArmLocked();
    // Before the alarm's first message, which needs the lock; the queue is empty, so this write
    // does not end the stream.
    Write(StartMessage());
    return absl::OkStatus();
  }

  v1::TraceMessage StartMessage() const TANDEM_REQUIRES(mu_) {
    v1::TraceMessage message;
    v1::TraceStart& start = *message.mutable_start();
    start.set_worker_id(service_.worker_.worker);
    start.set_device(service_.worker_.device);
    for (const Stage stage : service_.worker_.stages) start.add_stages(tandem::ToProto(stage));
    start.set_time_scale(service_.worker_.time_scale);
    start.set_started_at_nanoseconds(started_.nanoseconds());
    return message;
  }

  void ArmLocked() TANDEM_REQUIRES(mu_) {
    auto self = std::static_pointer_cast<Stream>(shared_from_this());
    alarm_ = time_.CallAt(std::min(time_.Now() + kTracePeriod, ends_), [self] { self->OnTime(); });
  }

  void OnTime() TANDEM_EXCLUDES(mu_) {
    Messages messages;
    bool ends = false;
    {
      MutexLock lock(mu_);
      if (gone_) return;
      ends = time_.Now() >= ends_;
      CollectLocked(messages);
      if (ends) EndLocked(messages);
    }
    for (v1::TraceMessage& message : messages) Write(std::move(message));
    if (!ends) {
      MutexLock lock(mu_);
      if (!gone_) ArmLocked();
      return;
    }
    EndUnlessDone(absl::ResourceExhaustedError("the trace's reader does not read"));
    End(absl::OkStatus());
  }

  // What is new, in bounded messages. A span's peer was named before the span was written.
  void CollectLocked(Messages& messages) TANDEM_REQUIRES(mu_) {
    const TraceLog& log = service_.log_;
    const uint64_t until = log.ring().written();
    std::vector<Span> spans;
    while (mark_ < until) {
      spans.clear();
      const uint64_t lost = log.ring().Read(mark_, kMaxTraceSpans, spans);
      v1::TraceSpans& out = *messages.emplace_back().mutable_spans();
      out.set_lost(lost);
      for (std::string& peer : log.Peers(peers_told_)) {
        out.add_peers(std::move(peer));
        peers_told_++;
      }
      for (Span& span : spans) {
        CutLocked(span);
        ToProto(span, out.add_spans());
      }
    }
  }

  // The wait that the device was in at the request may have begun long before. Only that one: an
  // emulated device may be behind its machine, and its later waits begin before the request too.
  void CutLocked(Span& span) TANDEM_REQUIRES(mu_) {
    if (span.kind != SpanKind::kWait || std::exchange(wait_told_, true)) return;
    span.begin = std::clamp(started_, span.begin, span.end);
  }

  void EndLocked(Messages& messages) TANDEM_REQUIRES(mu_) {
    if (std::optional<Span> wait = service_.worker_.open_wait()) {
      CutLocked(*wait);
      ToProto(*wait, messages.emplace_back().mutable_spans()->add_spans());
    }
    messages.emplace_back().mutable_end()->set_ended_at_nanoseconds(time_.Now().nanoseconds());
  }

  // The place of a reader that neither asks nor reads is not held for ever.
  void EndUnlessDone(const absl::Status& status) {
    std::weak_ptr<Stream> weak = std::static_pointer_cast<Stream>(shared_from_this());
    time_.CallAt(time_.Now() + kReaderPatience, [weak, status] {
      const std::shared_ptr<Stream> self = weak.lock();
      if (self != nullptr && !self->Tracing()) self->EndNow(status);
    });
  }
  bool Tracing() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    return requested_ && !gone_;
  }

  void OnGone(const std::string&) override {
    MutexLock lock(mu_);
    gone_ = true;
    if (alarm_.has_value()) time_.Cancel(*alarm_);
  }

  TraceService& service_;
  TimeSource& time_;  // outlives the stream
  Mutex mu_;
  bool requested_ TANDEM_GUARDED_BY(mu_) = false;
  bool gone_ TANDEM_GUARDED_BY(mu_) = false;
  Instant started_ TANDEM_GUARDED_BY(mu_), ends_ TANDEM_GUARDED_BY(mu_);
  std::optional<AlarmId> alarm_ TANDEM_GUARDED_BY(mu_);
  uint64_t mark_ TANDEM_GUARDED_BY(mu_) = 0;
  size_t peers_told_ TANDEM_GUARDED_BY(mu_) = 0;
  bool wait_told_ TANDEM_GUARDED_BY(mu_) = false;  // the first
};

grpc::ServerBidiReactor<v1::TraceRequest, v1::TraceMessage>* TraceService::Watch(
    grpc::CallbackServerContext* context) {
  std::optional<StreamCount::Place> place = streams_.Take();
  if (!place.has_value()) {
    return new RefusedStream<v1::TraceRequest, v1::TraceMessage>(absl::ResourceExhaustedError(
        absl::StrCat("max_trace_readers: ", streams_.max_streams(), " readers are at the trace")));
  }
  auto stream =
      std::make_shared<Stream>(ServerStreamOptions{.place = *std::move(place),
                                                   .context = context,
                                                   .max_queued_messages = kMaxQueuedMessages},
                               *this);
  stream->AwaitRequest();
  stream->Start();
  return stream.get();
}

}  // namespace tandem
