// What the decode engine's device computes, and the calls to the FFN group in between.
#include <absl/strings/str_cat.h>
#include <absl/types/span.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>
#include <utility>

#include "scheduler/base/status.h"
#include "services/runtime/log.h"
#include "workers/engine/decode_engine.h"

namespace tandem {
namespace {

// Infinities and NaNs are the numbers whose exponent is all ones. By bits, a loop that compilers
// turn into vector code: this reads every value that comes back.
std::optional<size_t> FirstNotFinite(absl::Span<const float> values) {
  constexpr uint32_t kExponent = 0x7f800000;
  const auto is_finite = [](float value) {
    return (std::bit_cast<uint32_t>(value) & kExponent) != kExponent;
  };
  bool all = true;
  for (const float value : values) all &= is_finite(value);
  if (all) return std::nullopt;
  return std::find_if_not(values.begin(), values.end(), is_finite) - values.begin();
}

}  // namespace

void DecodeEngine::RunTask() {
  std::optional<step::DecodeTask> task = machine_.NextTask(context_.Now());
  CarryOut();
  if (!task.has_value()) return;
  context_.books.EnterBusy(ledger::LedgerStage::kAttention);
  const auto [step, index] =
      std::visit([](const auto& t) { return std::pair(t.step, t.micro_batch); }, *task);
  step_cost_.Start(step);
  if (slots_.size() <= index) slots_.resize(index + 1);

  const Instant start = context_.line.Now();
  absl::Status status;
  std::vector<step::SampledToken> tokens;
  if (const auto* attention = std::get_if<step::AttentionTask>(&*task)) {
    if (attention->layer == 0)
      step_cost_.AddMicroBatch(static_cast<uint32_t>(attention->rows.size()));
    status = Compute(*attention, start);
  } else {
    status = Compute(std::get<step::HeadTask>(*task), start, tokens);
  }
  const Duration took = context_.line.DeviceTime(context_.line.Now() - start);
  step_cost_.AddCall(took);
  NoteTime(*task, took);
  const Instant done = context_.Now();

  if (!status.ok()) {
    machine_.OnTaskFailed(*task, status, done);
  } else if (const auto* attention = std::get_if<step::AttentionTask>(&*task)) {
    machine_.OnAttentionDone(*attention, done);
  } else {
    if (index == 0) context_.counters.steps++;
    machine_.OnHeadDone(std::get<step::HeadTask>(*task), std::move(tokens), done);
  }
  TraceStep(step, start);
  CarryOut();
}

void DecodeEngine::NoteTime(const step::DecodeTask& task, Duration took) {
  policy::CallTimes& times = machine_.call_times();
  if (const auto* head = std::get_if<step::HeadTask>(&task)) {
    times.AddHead(static_cast<uint32_t>(head->rows.size()), took);
  } else if (const auto& attention = std::get<step::AttentionTask>(task); attention.layer > 0) {
    times.AddAttention(static_cast<uint32_t>(attention.rows.size()), took);
  }  // the first layer's time has the embedding in it
}

// A step that ends outside a task has no further one, and its span waits for the next step's.
void DecodeEngine::TraceStep(uint64_t step, Instant start) {
  Span& span = step_span_;
  if (span.step != step) {
    if (span.step != 0) context_.trace.Add(span);
    span = {.kind = SpanKind::kStep, .step = step, .begin = start, .end = start};
  }
  span.end = context_.line.Now();
  if (machine_.in_step()) return;
  context_.trace.Add(span);
  span.step = 0;
}

absl::Status DecodeEngine::Compute(const step::AttentionTask& task, Instant start) {
  StageBackend& backend = context_.backend;
  Slot& slot = slots_[task.micro_batch];
  slot.rows = static_cast<uint32_t>(task.rows.size());
  if (task.layer == 0) {
    RETURN_IF_ERROR(slot.buffers.Reserve(backend, slot.rows));
    std::vector<TokenId> ids;
    slot.context_tokens = 0;
    for (const step::KvRow& row : task.rows) {
      ids.push_back(row.token);
      slot.context_tokens += row.position + 1;
    }
    RETURN_IF_ERROR(backend.Embed(ids, *slot.buffers.residual)->Wait());
    const Instant embedded = context_.line.Now();
    context_.trace.Add({.kind = SpanKind::kEmbed,
                        .micro_batch = task.micro_batch,
                        .rows = slot.rows,
                        .step = task.step,
                        .begin = start,
                        .end = embedded});
    start = embedded;
  }
  const Buffer* ffn_out = task.layer > 0 ? slot.buffers.ffn_out.get() : nullptr;
  RETURN_IF_ERROR(
      backend.AttentionLayer(task.layer, task.rows, *slot.buffers.residual, ffn_out)->Wait());
  context_.trace.Add({.kind = SpanKind::kAttention,
                      .layer = task.layer,
                      .micro_batch = task.micro_batch,
                      .context_tokens = slot.context_tokens,
                      .rows = slot.rows,
                      .step = task.step,
                      .begin = start,
                      .end = context_.line.Now()});
  return absl::OkStatus();
}

absl::Status DecodeEngine::Compute(const step::HeadTask& task, Instant start,
                                   std::vector<step::SampledToken>& tokens) {
  RowBuffers& buffers = slots_[task.micro_batch].buffers;
  RETURN_IF_ERROR(
      context_.backend.HeadAndSample(task.rows, *buffers.residual, buffers.ffn_out.get(), tokens)
          ->Wait());
  context_.trace.Add({.kind = SpanKind::kHead,
                      .micro_batch = task.micro_batch,
                      .rows = static_cast<uint32_t>(task.rows.size()),
                      .step = task.step,
                      .begin = start,
                      .end = context_.line.Now()});
  for (step::SampledToken& token : tokens) token.decode_step = task.step;
  if (tokens.size() != task.rows.size()) {
    return absl::InternalError(absl::StrCat("the backend drew ", tokens.size(), " tokens for ",
                                            task.rows.size(), " rows"));
  }
  return absl::OkStatus();
}

void DecodeEngine::CarryOut(step::SendA2f& send) {
  Slot& slot = slots_[send.call.micro_batch];
  A2f call;
  call.call = send.call;
  call.rows = send.rows;
  call.data = CopyOut(*slot.buffers.residual, size_t{send.rows} * context_.model().hidden);
  slot.call = send.call;
  slot.sent_at.resize(send.columns);
  slot.sent_at[send.column] = context_.line.Now();
  slot.partials.resize(send.columns > 1 ? send.columns : 0);
  if (send.crosses_from != 0) NoteCrossing(send);
  if (send.call.attempt > 0) context_.counters.calls_resent++;
  group_.Send(send.holder, std::move(call));
}

void DecodeEngine::NoteCrossing(const step::SendA2f& send) {
  context_.counters.class_crossings++;
  if (std::exchange(crossing_logged_, send.call.step) == send.call.step) return;  // once a step
  LogWarn("ffn_class_crossed", {{"step", send.call.step},
                                {"layer", send.call.layer},
                                {"rows", send.rows},
                                {"from", GeometryOf(send.crosses_from)},
                                {"to", GeometryOf(send.columns)}});
}

void DecodeEngine::OnReply(const std::string& holder, F2a& reply) {
  if (!reply.status.ok()) {
    // A holder of another shard, or one that is going, gets no more calls; a full queue is an
    // answer to this one only.
    const bool refused =
        absl::IsResourceExhausted(reply.status) || absl::IsInvalidArgument(reply.status);
    if (!refused) {
      group_.GiveUp(holder, reply.status);
    } else if (!machine_.OnFfnRefused(holder, reply.call, reply.status, context_.Now())) {
      context_.counters.replies_dropped++;
    }
    CarryOut();
    return;
  }
  if (reply.call.micro_batch >= slots_.size()) {
    context_.counters.replies_dropped++;
    return;
  }
  TakeReply(holder, slots_[reply.call.micro_batch], reply);
}

void DecodeEngine::TakeReply(const std::string& holder, Slot& slot, F2a& reply) {
  const size_t floats = size_t{slot.rows} * context_.model().hidden;
  const Instant now = context_.Now();
  const bool of_this_layer = reply.call.step == slot.call.step &&
                             reply.call.layer == slot.call.layer &&
                             reply.call.micro_batch == slot.call.micro_batch;
  if (of_this_layer && reply.data.size() != floats) {
    group_.GiveUp(holder, absl::InternalError(absl::StrCat(
                              "FFN worker ", holder, " answered ", slot.rows, " rows with ",
                              reply.data.size(), " floats, not ", floats)));
    CarryOut();
    return;
  }
  if (const std::optional<size_t> at = of_this_layer ? FirstNotFinite(reply.data) : std::nullopt) {
    const size_t hidden = context_.model().hidden;
    group_.GiveUp(holder, absl::InternalError(absl::StrCat(
                              "FFN worker ", holder, " answered layer ", reply.call.layer,
                              " with data[row ", *at / hidden, "][", *at % hidden,
                              "] = ", reply.data[*at], ", not a finite number")));
    CarryOut();
    return;
  }
  const std::optional<step::TakenReply> taken =
      machine_.OnFfnReply(holder, reply.call, reply.shared, now);
  if (!taken.has_value()) {
    context_.counters.replies_dropped++;
    CarryOut();  // it may have given back the credit that a call waited for
    return;
  }
  if (taken->columns == 1) {
    slot.buffers.ffn_out->Write(0, reply.data);
  } else {
    slot.partials[taken->column] = std::move(reply.data);
    if (taken->last) SumPartials(slot);
  }
  const Instant sent = slot.sent_at[taken->column], received = context_.line.Now();
  if (!context_.Runs(Stage::kFfn)) {  // its own FFN stage is no hand-off
    context_.trace.Add({.kind = SpanKind::kA2f,
                        .peer = context_.trace.PeerIndex(holder),
                        .layer = reply.call.layer,
                        .micro_batch = reply.call.micro_batch,
                        .attempt = reply.call.attempt,
                        .rows = slot.rows,
                        .step = reply.call.step,
                        .begin = sent,
                        .end = received});
  }
  // Of several pieces the last one's reply ends the wait.
  if (taken->last) {
    const Duration round_trip = context_.line.DeviceTime(received - sent);
    context_.books.OnReply({round_trip, reply.queue_time, reply.compute_time});
    // From when it came: the device may have computed another micro-batch since.
    const Duration call = context_.line.DeviceTime(reply.arrives_at - sent);
    machine_.call_times().AddFfn(slot.rows, reply.compute_time,
                                 call - reply.queue_time - reply.compute_time);
  }
  step_cost_.AddFfnCall(holder, reply.compute_time, slot.rows, reply.merged_rows);
  CarryOut();
}

void DecodeEngine::SumPartials(Slot& slot) {
  std::vector<float>& sum = slot.partials.front();
  for (size_t piece = 1; piece < slot.partials.size(); piece++) {
    const float* const partial = slot.partials[piece].data();
    for (size_t i = 0; i < sum.size(); i++) sum[i] += partial[i];
  }
  slot.buffers.ffn_out->Write(0, sum);
}

}  // namespace tandem
