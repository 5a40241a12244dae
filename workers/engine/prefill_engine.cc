#include "workers/engine/prefill_engine.h"

#include <absl/types/span.h>

#include <utility>
#include <vector>

#include "scheduler/base/status.h"

namespace tandem {
namespace {

step::PrefillConfig MachineConfig(const EngineContext& context) {
  step::PrefillConfig config;
  config.layers = context.model().layers;
  config.chunk_tokens = context.config.chunk_tokens;
  config.max_jobs = context.config.max_prefill_jobs;
  config.kv_row_bytes = context.backend.info().kv_row_bytes;
  config.send_window_bytes = context.config.send_window_bytes;
  return config;
}

}  // namespace

PrefillEngine::PrefillEngine(EngineContext& context, step::KvBook& book, KvConnector& connector,
                             LocalCallbacks local)
    : context_(context),
      machine_(MachineConfig(context), book),
      sender_(context, connector,
              {[this](const KvAckInfo& ack) { OnAck(ack); },
               [this](const WorkerId& worker, const absl::Status& status) {
                 OnBroken(worker, status);
               }}),
      local_(std::move(local)) {}

absl::Status PrefillEngine::Prefill(PrefillOrder order) {
  if (order.attention_worker.empty())
    return absl::InvalidArgumentError("a prefill order without an attention worker");
  if (order.job.ids.size() > context_.model().context_tokens) {
    return absl::InvalidArgumentError(
        absl::StrCat("prefill ", order.job.reservation.value(), ": ", order.job.ids.size(),
                     " ids exceed the context of ", context_.model().context_tokens));
  }
  const ReservationId reservation = order.job.reservation;
  Job job{order.job.sequence,
          order.attention_worker,
          static_cast<uint32_t>(order.job.ids.size()) - 1,
          {}};
  order.job.local_blocks = nullptr;
  RETURN_IF_ERROR(machine_.Enqueue(std::move(order.job)));
  jobs_[reservation] = std::move(job);
  sender_.Open(order.attention_worker, order.attention_address);
  return absl::OkStatus();
}

absl::Status PrefillEngine::PrefillLocal(step::PrefillJob order) {
  const ReservationId reservation = order.reservation;
  Job job{order.sequence, WorkerId(), static_cast<uint32_t>(order.ids.size()) - 1, {}};
  RETURN_IF_ERROR(machine_.Enqueue(std::move(order)));
  jobs_[reservation] = std::move(job);
  return absl::OkStatus();
}

void PrefillEngine::Cancel(const ReservationId& reservation) {
  machine_.Cancel(reservation);
  CarryOut();
  jobs_.erase(reservation);
}

void PrefillEngine::Cancel(const SequenceKey& sequence) {
  for (const auto& [reservation, job] : jobs_) {
    if (job.sequence != sequence || job.attention_worker.empty()) continue;
    Cancel(ReservationId(reservation));
    return;
  }
}

void PrefillEngine::CancelAll(const absl::Status& status) {
  std::vector<ReservationId> reservations;
  for (const auto& [reservation, job] : jobs_) reservations.push_back(reservation);
  for (const ReservationId& reservation : reservations) {
    const auto job = jobs_.find(reservation);
    if (job == jobs_.end()) continue;
    if (!job->second.attention_worker.empty()) {
      context_.listener.OnEnded(job->second.sequence, {EndReason::kFailed, status});
    }
    Cancel(reservation);
  }
  sender_.CloseAll();
}

void PrefillEngine::RunTask() {
  const std::optional<step::PrefillTask> task = machine_.NextTask();
  if (!task.has_value()) return;
  context_.books.EnterBusy(ledger::LedgerStage::kPrefill);
  const Instant start = context_.line.Now();
  const absl::Status status = Compute(*task);
  Job& job = jobs_.at(task->reservation);
  PrefillCost& cost = job.cost;
  const Instant end = context_.line.Now();
  if (cost.calls == 0) job.began = start;
  job.computed_until = end;
  cost.seconds += context_.line.DeviceTime(end - start).seconds();
  cost.calls++;
  if (task->layer == 0) chunks_++;
  context_.trace.Add({.kind = SpanKind::kPrefill,
                      .layer = task->layer,
                      .rows = static_cast<uint32_t>(task->rows.size()),
                      .step = chunks_,
                      .begin = start,
                      .end = end});
  if (status.ok()) {
    machine_.OnTaskDone(*task);
  } else {
    machine_.OnTaskFailed(*task, status);
  }
  CarryOut();
}

// The last layer's FFN is left out: nothing reads its output, for the attention worker computes the
// last prompt token.
absl::Status PrefillEngine::Compute(const step::PrefillTask& task) {
  StageBackend& backend = context_.backend;
  const auto rows = static_cast<uint32_t>(task.rows.size());
  RETURN_IF_ERROR(buffers_.Reserve(backend, std::max(rows, context_.config.chunk_tokens)));
  if (task.layer == 0) {
    std::vector<TokenId> ids;
    for (const step::KvRow& row : task.rows) ids.push_back(row.token);
    RETURN_IF_ERROR(backend.Embed(ids, *buffers_.residual)->Wait());
  }
  const Buffer* ffn_out = task.layer > 0 ? buffers_.ffn_out.get() : nullptr;
  RETURN_IF_ERROR(
      backend.AttentionLayer(task.layer, task.rows, *buffers_.residual, ffn_out)->Wait());
  if (task.layer + 1 == context_.model().layers) return absl::OkStatus();
  return backend.FfnLayer(task.layer, rows, *buffers_.residual, *buffers_.ffn_out)->Wait();
}

void PrefillEngine::CarryOut() {
  for (;;) {
    std::vector<step::PrefillEffect> effects = machine_.TakeEffects();
    if (effects.empty()) return;
    for (const step::PrefillEffect& effect : effects) {
      std::visit([this](const auto& what) { CarryOut(what); }, effect);
    }
    // Not within the effects: the machine frees the blocks that a later one of them may name.
    std::vector<std::pair<ReservationId, absl::Status>> unread;
    unread.swap(unread_);
    for (const auto& [reservation, status] : unread) machine_.OnPeerFailed(reservation, status);
  }
}

void PrefillEngine::CarryOut(const step::PushKv& push) {
  const auto found = jobs_.find(push.reservation);
  if (found == jobs_.end()) return;  // failed by an effect before this one
  const Job& job = found->second;
  KvRows frame;
  frame.reservation = push.reservation;
  frame.attempt = push.sequence.attempt;
  frame.layer = push.layer;
  frame.first_position = push.first_position;
  frame.count = push.count;
  frame.rows.resize(push.count * context_.backend.info().kv_row_bytes);
  const absl::Status read = context_.backend.ReadKv(push.layer, *push.blocks, push.first_position,
                                                    push.count, absl::MakeSpan(frame.rows));
  if (!read.ok()) {
    unread_.emplace_back(push.reservation, read);
    return;
  }
  if (push.layer + 1 == context_.model().layers && push.first_position + push.count == job.rows) {
    frame.prefill_seconds = job.cost.seconds;
    frame.prefill_calls = job.cost.calls;
    frame.prefill_worker = context_.config.worker.value();
  }
  sender_.Push(job.attention_worker, std::move(frame));
}

void PrefillEngine::CarryOut(const step::PrefillDone& done) {
  const auto found = jobs_.find(done.reservation);
  if (found == jobs_.end()) return;
  const Job job = std::move(found->second);
  jobs_.erase(found);
  if (job.cost.calls > 0) {
    const Duration took = context_.line.DeviceTime(job.computed_until - job.began);
    context_.counters.prefills.Add(kRequestBuckets, took.seconds());
  }
  context_.listener.OnPrefilled(job.sequence);
  if (job.attention_worker.empty()) local_.on_done(done.reservation, job.cost);
}

void PrefillEngine::CarryOut(const step::PrefillFailed& failed) {
  const auto found = jobs_.find(failed.reservation);
  if (found == jobs_.end()) return;
  const Job job = std::move(found->second);
  jobs_.erase(found);
  if (job.attention_worker.empty()) {
    local_.on_failed(failed.reservation, failed.status);
  } else {
    context_.listener.OnEnded(job.sequence, {EndReason::kFailed, failed.status});
  }
}

void PrefillEngine::CarryOut(const step::CancelPush& cancel) {
  const auto found = jobs_.find(cancel.reservation);
  if (found == jobs_.end()) return;
  KvRows frame;
  frame.reservation = cancel.reservation;
  frame.attempt = cancel.sequence.attempt;
  frame.cancel = true;
  sender_.Push(found->second.attention_worker, std::move(frame));
}

void PrefillEngine::OnAck(const KvAckInfo& ack) {
  const auto found = jobs_.find(ack.reservation);
  if (found == jobs_.end() || found->second.sequence.attempt != ack.attempt) return;
  if (ack.status.ok()) {
    machine_.OnAck(ack.reservation, ack.layer, ack.positions);
  } else {
    machine_.OnPeerFailed(ack.reservation, ack.status);
  }
  CarryOut();
}

void PrefillEngine::OnBroken(const WorkerId& attention_worker, const absl::Status& status) {
  std::vector<ReservationId> lost;
  for (const auto& [reservation, job] : jobs_) {
    if (job.attention_worker == attention_worker) lost.push_back(reservation);
  }
  for (const ReservationId& reservation : lost) machine_.OnPeerFailed(reservation, status);
  CarryOut();
}

}  // namespace tandem
