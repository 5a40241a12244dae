#include "workers/engine/ffn_engine.h"

#include <algorithm>
#include <cstring>

#include "scheduler/base/status.h"
#include "workers/connector/own_copy.h"
#include "workers/connector/stale_shard.h"

namespace tandem {
namespace {

step::FfnConfig MachineConfig(const EngineContext& context) {
  step::FfnConfig config;
  config.layers = context.model().layers;
  config.max_rows = context.config.max_handoff_rows;
  config.max_queued_bytes = context.config.max_queued_bytes;
  config.hidden_bytes = uint64_t{context.model().hidden} * sizeof(float);
  config.shard = context.backend.info().shard;
  config.max_merge_wait = context.line.MachineTime(context.config.max_merge_wait);
  return config;
}

F2a Refusal(const step::CallId& call, const absl::Status& status) {
  F2a reply;
  reply.call = call;
  reply.status = OwnCopy(status);
  return reply;
}

}  // namespace

FfnEngine::FfnEngine(EngineContext& context)
    : context_(context), machine_(MachineConfig(context)) {}

absl::Status FfnEngine::CheckHello(const HandoffHello& hello) const {
  const ModelDimensions& model = context_.model();
  const std::string& worker = context_.config.worker.value();
  if (hello.model != context_.config.model || hello.hidden != model.hidden ||
      hello.layers != model.layers) {
    return absl::FailedPreconditionError(
        absl::StrCat("FFN worker ", worker, " holds ", context_.config.model, " (", model.layers,
                     " layers of ", model.hidden, "), not ", hello.model, " (", hello.layers,
                     " layers of ", hello.hidden, ")"));
  }
  const std::string& own_class = context_.backend.info().numerics.ffn;
  if (!hello.ffn_class.empty() && hello.ffn_class != own_class) {
    return absl::FailedPreconditionError(absl::StrCat("FFN worker ", worker, " computes in class ",
                                                      own_class, ", not ", hello.ffn_class));
  }
  const FfnShard own_shard = ResolveShard(context_.backend.info().shard, model.layers);
  if (hello.shard.has_value() && ResolveShard(*hello.shard, model.layers) != own_shard) {
    return absl::FailedPreconditionError(absl::StrCat("FFN worker ", worker, " holds ",
                                                      ToString(own_shard, model.layers), ", not ",
                                                      ToString(*hello.shard, model.layers)));
  }
  if (hello.shard_epoch != context_.config.shard_epoch) {
    return StaleShardError(worker, context_.config.shard_epoch, hello.shard_epoch);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::pair<step::StreamId, HandoffGrantInfo>> FfnEngine::OpenStream(
    const HandoffHello& hello, std::shared_ptr<FfnReplySink> sink) {
  RETURN_IF_ERROR(CheckHello(hello));
  const step::StreamId id{next_stream_};
  HandoffGrantInfo grant;
  ASSIGN_OR_RETURN(grant.credit_bytes, machine_.OpenStream(id, hello.max_rows));
  grant.max_rows = std::min(hello.max_rows, context_.config.max_handoff_rows);
  grant.shard_epoch = context_.config.shard_epoch;
  grant.link = context_.line.link();
  next_stream_++;
  Stream& stream = streams_[id];
  stream.sink = std::move(sink);
  stream.link = hello.link;
  stream.own =
      context_.Runs(Stage::kAttention) && hello.attention_worker == context_.config.worker.value();
  if (stream.own) own_streams_++;
  stream.peer = context_.trace.PeerIndex(hello.attention_worker);
  return std::pair(id, grant);
}

absl::Status FfnEngine::CheckCall(const A2f& call) const {
  if (call.shard_epoch != context_.config.shard_epoch) {
    return StaleShardError(context_.config.worker.value(), context_.config.shard_epoch,
                           call.shard_epoch);
  }
  if (call.data.size() != size_t{call.rows} * context_.model().hidden) {
    return absl::InvalidArgumentError(absl::StrCat("a call of ", call.rows, " rows of ",
                                                   context_.model().hidden, " with ",
                                                   call.data.size(), " floats"));
  }
  return absl::OkStatus();
}

void FfnEngine::Call(step::StreamId id, A2f call) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  Stream& stream = found->second;
  absl::Status taken = CheckCall(call);
  if (taken.ok() && stream.queued.contains(call.call))
    taken = absl::InvalidArgumentError("the same call is queued already");
  const Instant stamp = context_.line.Due(call.arrives_at);
  const Instant arrival = stamp != Instant() ? stamp : context_.line.Now();
  if (taken.ok()) taken = machine_.Enqueue({id, call.call, call.rows, arrival});
  if (!taken.ok()) {
    stream.sink->Reply(Refusal(call.call, taken));
    return;
  }
  stream.queued[call.call] = std::move(call.data);
}

void FfnEngine::SetLive(step::StreamId id, bool live) {
  const auto found = streams_.find(id);
  if (found != streams_.end()) found->second.live = live;
}

void FfnEngine::CloseStream(step::StreamId id) {
  const auto found = streams_.find(id);
  if (found == streams_.end()) return;
  machine_.CloseStream(id);
  if (found->second.own) own_streams_--;
  streams_.erase(found);
}

void FfnEngine::EndAll(const absl::Status& status) {
  for (auto& [id, stream] : streams_) {
    machine_.CloseStream(id);
    for (const auto& [call, rows] : stream.queued) stream.sink->Reply(Refusal(call, status));
    stream.sink->Close(OwnCopy(status));
  }
  streams_.clear();
  own_streams_ = 0;
}

void FfnEngine::RunTask() {
  const std::optional<step::FfnTask> task = machine_.NextTask(context_.line.Now());
  if (!task.has_value()) return;
  context_.books.EnterBusy(ledger::LedgerStage::kFfn);
  context_.counters.ffn_calls += task->calls.size();
  if (task->calls.size() > 1) context_.counters.ffn_merged_calls += task->calls.size();
  const Instant start = context_.line.Now();
  absl::Status status = Gather(*task);
  if (status.ok() && task->rows > 0) {
    status =
        context_.backend.FfnLayer(task->layer, task->rows, *buffers_.residual, *buffers_.ffn_out)
            ->Wait();
  }
  const Instant end = context_.line.Now();
  TraceTask(*task, start, end);
  machine_.OnTaskDone(*task, end);
  Answer(*task, status, start, context_.line.DeviceTime(end - start));
}

void FfnEngine::TraceTask(const step::FfnTask& task, Instant start, Instant end) {
  const step::QueuedCall& first = task.calls.front();
  context_.trace.Add({.kind = SpanKind::kFfn,
                      .peer = streams_.at(first.stream).peer,
                      .calls = static_cast<uint16_t>(std::min<size_t>(task.calls.size(), 0xffff)),
                      .layer = task.layer,
                      .micro_batch = first.call.micro_batch,
                      .rows = task.rows,
                      .step = first.call.step,
                      .begin = start,
                      .end = end});
}

absl::Status FfnEngine::Gather(const step::FfnTask& task) {
  if (task.rows == 0) return absl::OkStatus();
  RETURN_IF_ERROR(buffers_.Reserve(context_.backend, task.rows));
  size_t at = 0;
  for (const step::QueuedCall& call : task.calls) {
    const std::vector<float>& rows = streams_.at(call.stream).queued.at(call.call);
    buffers_.residual->Write(at, rows);
    at += rows.size();
  }
  return absl::OkStatus();
}

void FfnEngine::Answer(const step::FfnTask& task, const absl::Status& status, Instant start,
                       Duration compute) {
  size_t at = 0;
  for (const step::QueuedCall& call : task.calls) {
    Stream& stream = streams_.at(call.stream);
    F2a reply;
    reply.call = call.call;
    reply.status = OwnCopy(status);
    reply.queue_time = context_.line.DeviceTime(start - call.arrival);
    reply.compute_time = compute;
    reply.merged_rows = task.rows;
    reply.shared = task.Shared(call);
    // The call's own memory takes its result.
    reply.data = std::move(stream.queued.extract(call.call).mapped());
    if (!status.ok()) reply.data.clear();
    if (!reply.data.empty()) buffers_.ffn_out->Read(at, absl::MakeSpan(reply.data));
    at += reply.data.size();
    if (!stream.own) {
      reply.arrives_at = context_.line.SendF2a(call.rows, stream.link);
      TraceServed(call, stream.peer);
    }
    stream.sink->Reply(std::move(reply));
  }
}

void FfnEngine::TraceServed(const step::QueuedCall& call, uint16_t peer) {
  context_.trace.Add({.kind = SpanKind::kServed,
                      .peer = peer,
                      .layer = call.call.layer,
                      .micro_batch = call.call.micro_batch,
                      .attempt = call.call.attempt,
                      .rows = call.rows,
                      .step = call.call.step,
                      .begin = call.arrival,
                      .end = context_.line.Now()});
}

bool FfnEngine::starved() const {
  return std::any_of(streams_.begin(), streams_.end(),
                     [](const auto& stream) { return stream.second.live; });
}

}  // namespace tandem
