#include "scheduler/step/decode_machine.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <limits>

#include "scheduler/base/check.h"
#include "scheduler/step/decode_state.h"

namespace tandem::step {
namespace {

// What an end from outside means to the sequence.
SequenceEventKind EventOf(EndReason reason) {
  switch (reason) {
    case EndReason::kFailed:
      return SequenceEventKind::kFailed;
    case EndReason::kPreempted:
      return SequenceEventKind::kPreempt;
    case EndReason::kSuperseded:
      return SequenceEventKind::kSupersede;
    default:
      return SequenceEventKind::kStop;
  }
}

}  // namespace

DecodeMachine::DecodeMachine(const DecodeConfig& config, KvBook& book)
    : state_(std::make_unique<State>(config, book)) {
  TANDEM_CHECK(config.max_batch >= 1 && config.max_sequences >= 1 && config.context_tokens >= 1);
}
DecodeMachine::~DecodeMachine() = default;

absl::Status DecodeMachine::Admit(DecodeRequest request, Instant now) {
  const absl::Status admitted = state_->Admit(std::move(request), now);
  state_->Settle(now);
  return admitted;
}

absl::StatusOr<const BlockTable*> DecodeMachine::KvDestination(const ReservationId& reservation,
                                                               uint32_t attempt, uint32_t layer,
                                                               uint32_t first_position,
                                                               uint32_t count) const {
  return state_->reservations.Destination(reservation, attempt, layer, first_position, count);
}

uint32_t DecodeMachine::OnKvRows(const ReservationId& reservation, uint32_t layer,
                                 uint32_t first_position, uint32_t count, Instant now) {
  Reservation* const waiting = state_->reservations.Find(reservation);
  TANDEM_CHECK(waiting != nullptr);  // KvDestination just said so
  const uint32_t rows = state_->reservations.OnRows(*waiting, layer, first_position, count, now);
  if (state_->reservations.IsComplete(*waiting)) state_->StartSequences(*waiting, now);
  state_->Settle(now);
  return rows;
}

void DecodeMachine::OnLocalPrefillDone(const ReservationId& reservation, Instant now) {
  if (!state_->reservations.FreeAbandoned(reservation)) {
    Reservation* const waiting = state_->reservations.Find(reservation);
    TANDEM_CHECK(waiting != nullptr && waiting->prefill_started);
    state_->StartSequences(*waiting, now);
  }
  state_->Settle(now);
}

void DecodeMachine::OnLocalPrefillFailed(const ReservationId& reservation,
                                         const absl::Status& status, Instant now) {
  if (!state_->reservations.FreeAbandoned(reservation)) {
    Reservation* const waiting = state_->reservations.Find(reservation);
    TANDEM_CHECK(waiting != nullptr && waiting->prefill_started);
    waiting->prefill_failed = true;
    state_->FailChoices(reservation, SequenceEventKind::kFailed, status);
  }
  state_->Settle(now);
}

void DecodeMachine::Release(const ReservationId& reservation, EndReason reason, Instant now) {
  for (Sequence* sequence : state_->Choices(reservation)) {
    state_->End(*sequence, SequenceEventKind::kRelease, {reason, absl::OkStatus()});
  }
  state_->Settle(now);
}

void DecodeMachine::Stop(const SequenceKey& key, uint32_t position, EndReason reason, Instant now) {
  Sequence* const sequence = state_->sequences.Find(key);
  if (sequence == nullptr) return;
  if (!sequence->leaving.has_value()) {
    const size_t kept = std::max(position, sequence->first_output);
    if (sequence->emitted_ids.size() > kept)
      state_->tokens_wasted += sequence->emitted_ids.size() - kept;
    state_->End(*sequence, SequenceEventKind::kStop, {reason, absl::OkStatus()}, position);
  }
  state_->Settle(now);
}

void DecodeMachine::EndAllOf(const GatewayId& gateway, const SequenceEnd& end, Instant now) {
  std::vector<SequenceKey> keys;
  for (const auto& [admitted, sequence] : state_->sequences.all()) {
    if (sequence->request->gateway == gateway) keys.push_back(sequence->key);
  }
  state_->EndEach(keys, EventOf(end.reason), end);
  state_->Settle(now);
}

void DecodeMachine::EndAll(const SequenceEnd& end, Instant now) {
  std::vector<SequenceKey> keys;
  for (const auto& [admitted, sequence] : state_->sequences.all()) keys.push_back(sequence->key);
  state_->EndEach(keys, EventOf(end.reason), end);
  state_->Settle(now);
}

void DecodeMachine::SetGroup(std::vector<GroupHolder> holders, Instant now) {
  state_->holders.SetGroup(std::move(holders));
  for (const auto& batch : state_->batches.all()) batch->refused_by.clear();
  state_->Settle(now);
}

void DecodeMachine::OnHolderUp(const std::string& holder, uint64_t credit_bytes, uint32_t max_rows,
                               Instant now) {
  state_->holders.Up(holder, credit_bytes, max_rows);
  for (const auto& batch : state_->batches.all()) {
    if (batch->refused_by == holder) batch->refused_by.clear();
  }
  state_->Settle(now);
}

void DecodeMachine::OnHolderLost(const std::string& holder, const absl::Status& status,
                                 Instant now) {
  if (!state_->holders.Down(holder)) return;
  state_->effects.push_back(HolderSuspected{holder, status});
  for (const auto& batch : state_->batches.all()) {
    for (size_t i = 0; i < batch->pieces.size(); i++) {  // a loss may end the call
      if (batch->pieces[i].holder == holder) state_->LoseCall(*batch, batch->pieces[i], status);
    }
  }
  state_->Settle(now);
}

bool DecodeMachine::OnFfnRefused(const std::string& holder, const CallId& call,
                                 const absl::Status& status, Instant now) {
  const auto [batch, piece] = state_->Awaited(holder, call);
  if (piece == nullptr) {
    if (state_->holders.TakeAbandoned(holder, call)) state_->Settle(now);
    return false;
  }
  state_->holders.GiveCredit(holder, batch->row_count());
  batch->refused_by = holder;
  state_->LoseCall(*batch, *piece, status);
  state_->Settle(now);
  return true;
}

std::optional<TakenReply> DecodeMachine::OnFfnReply(const std::string& holder, const CallId& call,
                                                    bool shared, Instant now) {
  const auto [batch, piece] = state_->Awaited(holder, call);
  if (piece == nullptr) {
    if (state_->holders.TakeAbandoned(holder, call)) state_->Settle(now);
    return std::nullopt;
  }
  state_->holders.GiveCredit(holder, batch->row_count());
  piece->holder.clear();
  piece->answered = true;
  state_->pace.calls++;
  if (shared) state_->pace.shared++;
  const TakenReply taken{static_cast<uint32_t>(piece - batch->pieces.data()),
                         static_cast<uint32_t>(batch->pieces.size()), batch->answered()};
  if (taken.last) state_->batches.OnAnswered(*batch);
  state_->FailIfAbandoned(*batch);
  state_->Settle(now);
  return taken;
}

std::optional<DecodeTask> DecodeMachine::NextTask(Instant now) {
  TANDEM_CHECK(!state_->task_out);
  if (!state_->batches.running() && !state_->StartStep(now)) return std::nullopt;
  if (!state_->batches.HasReady()) return std::nullopt;
  state_->task_out = true;
  return state_->TaskOf(state_->batches.TakeReady());
}

bool DecodeMachine::HasTask() const {
  return !state_->task_out && (state_->batches.HasReady() || state_->CanStartStep());
}

void DecodeMachine::OnAttentionDone(const AttentionTask& task, Instant now) {
  MicroBatch* const batch = state_->batches.Find(task.step, task.micro_batch);
  TANDEM_CHECK(state_->task_out && batch != nullptr && batch->layer == task.layer);
  state_->task_out = false;
  state_->batches.OnAttentionDone(*batch);
  state_->FailIfAbandoned(*batch);
  state_->Settle(now);
}

void DecodeMachine::OnHeadDone(const HeadTask& task, std::vector<SampledToken> tokens,
                               Instant now) {
  MicroBatch* const batch = state_->batches.Find(task.step, task.micro_batch);
  TANDEM_CHECK(state_->task_out && batch != nullptr && tokens.size() == batch->rows.size());
  state_->task_out = false;
  for (size_t i = 0; i < tokens.size(); i++) batch->rows[i]->drawn = std::move(tokens[i]);
  state_->batches.OnHeadDone(*batch);
  state_->Settle(now);
}

void DecodeMachine::OnTaskFailed(const DecodeTask& task, const absl::Status& status, Instant now) {
  const auto [step, index] =
      std::visit([](const auto& t) { return std::pair(t.step, t.micro_batch); }, task);
  MicroBatch* const batch = state_->batches.Find(step, index);
  TANDEM_CHECK(state_->task_out && batch != nullptr);
  state_->task_out = false;
  state_->FailRows(*batch, status);
  state_->Settle(now);
}

policy::CallTimes& DecodeMachine::call_times() { return state_->call_times; }

Instant DecodeMachine::NextDeadline() const {
  return std::min({state_->reservations.NextDeadline(), state_->FfnDeadline(), state_->pace.held});
}

void DecodeMachine::OnTime(Instant now) {
  if (state_->pace.held <= now) state_->pace.held = Instant::Never();
  for (const ReservationId& id : state_->reservations.Expired(now)) {
    const double lease_seconds = state_->reservations.Find(id)->request->lease.seconds();
    state_->FailChoices(id, SequenceEventKind::kLeaseExpired,
                        absl::UnavailableError(
                            absl::StrCat("no KV frame of the prompt for ", lease_seconds, " s")));
  }
  if (state_->FfnDeadline() <= now) state_->EndBlocked(now);
  state_->Settle(now);
}

std::vector<DecodeEffect> DecodeMachine::TakeEffects() {
  std::vector<DecodeEffect> effects;
  effects.swap(state_->effects);
  return effects;
}

uint32_t DecodeMachine::sequences() const {
  return static_cast<uint32_t>(state_->sequences.size());
}
uint32_t DecodeMachine::waiting() const { return state_->reservations.waiting(); }
uint64_t DecodeMachine::abandoned_blocks() const { return state_->reservations.abandoned_blocks(); }
std::vector<SequenceKey> DecodeMachine::live() const { return state_->sequences.Keys(); }
uint64_t DecodeMachine::tokens_total() const { return state_->tokens_total; }
uint64_t DecodeMachine::prompts_total() const { return state_->prompts_total; }
uint64_t DecodeMachine::prompt_tokens_total() const { return state_->prompt_tokens_total; }
uint64_t DecodeMachine::tokens_wasted() const { return state_->tokens_wasted; }
bool DecodeMachine::in_step() const { return state_->batches.running(); }

bool DecodeMachine::waits_for_ffn() const {
  return state_->batches.running() && !state_->task_out && !state_->batches.HasReady();
}

}  // namespace tandem::step
