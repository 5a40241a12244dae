// The running step's calls to the FFN group: who gets which piece, losses, and waiting for holders.
#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/base/check.h"
#include "scheduler/step/decode_state.h"

namespace tandem::step {
namespace {

constexpr uint32_t kMaxHoldersLost =
    2;  // on one call: its rows may be what kills them (PROTOCOL section 5)

}  // namespace

// In order of arrival: a call that waits for credit is not overtaken. One whose layer nobody holds
// now stands aside.
void DecodeMachine::State::SendCalls() {
  const std::deque<MicroBatch*> unsent = batches.unsent();
  for (MicroBatch* const batch : unsent) {
    const Target target = ChooseTarget(*batch);
    if (target.holders.empty()) continue;
    if (!holders.TakeCredits(target.holders, batch->row_count())) return;
    if (target.whole_call) BeginCall(*batch, static_cast<uint32_t>(target.holders.size()));
    SendPieces(*batch, target);
  }
}

DecodeMachine::State::Target DecodeMachine::State::ChooseTarget(const MicroBatch& batch) const {
  const uint32_t rows = batch.row_count(), columns = static_cast<uint32_t>(batch.pieces.size());
  std::vector<std::string> again;
  bool complete = columns > 0;
  for (uint32_t column = 0; column < columns && complete; column++) {
    if (!batch.pieces[column].missing()) continue;
    const std::string* const holder =
        holders.PickPiece(batch.layer, column, columns, rows, batch.refused_by);
    complete = holder != nullptr;
    if (complete) again.push_back(*holder);
  }
  if (complete) return {std::move(again), false};
  return {holders.PickSet(batch.layer, rows, batch.refused_by), true};
}

void DecodeMachine::State::BeginCall(MicroBatch& batch, uint32_t columns) {
  AbandonPieces(batch);
  batch.pieces.assign(columns, CallPiece());
}

void DecodeMachine::State::SendPieces(MicroBatch& batch, const Target& target) {
  const uint32_t columns = static_cast<uint32_t>(batch.pieces.size());
  uint32_t crosses_from = CrossesFrom(batch);
  auto holder = target.holders.begin();
  for (uint32_t column = 0; column < columns; column++) {
    CallPiece& piece = batch.pieces[column];
    if (!piece.missing()) continue;
    piece.holder = *holder++;
    piece.attempt = batch.attempt;
    effects.push_back(SendA2f{{batches.step(), batch.layer, batch.index, batch.attempt},
                              piece.holder,
                              batch.row_count(),
                              column,
                              columns,
                              std::exchange(crosses_from, 0)});
  }
  TANDEM_CHECK(holder == target.holders.end());
  batches.MarkSent(batch);
}

void DecodeMachine::State::AbandonPieces(MicroBatch& batch) {
  for (CallPiece& piece : batch.pieces) {
    if (!piece.in_flight()) continue;
    holders.Abandon(piece.holder, {batches.step(), batch.layer, batch.index, piece.attempt},
                    batch.row_count());
    piece.holder.clear();
  }
}

// Notes in which cut the layer is computed now. Layers of one model may be cut differently.
uint32_t DecodeMachine::State::CrossesFrom(MicroBatch& batch) {
  const uint32_t columns = static_cast<uint32_t>(batch.pieces.size());
  uint32_t from = 0;
  for (Sequence* const sequence : batch.rows) {
    sequence->ffn_columns.resize(config.layers);
    const uint32_t before = std::exchange(sequence->ffn_columns[batch.layer], columns);
    if (before != 0 && before != columns) from = before;
  }
  return from;
}

std::pair<MicroBatch*, CallPiece*> DecodeMachine::State::Awaited(const std::string& holder,
                                                                 const CallId& call) const {
  MicroBatch* const batch = batches.Find(call.step, call.micro_batch);
  if (batch == nullptr || batch->layer != call.layer) return {nullptr, nullptr};
  for (CallPiece& piece : batch->pieces) {
    if (piece.in_flight() && piece.holder == holder && piece.attempt == call.attempt)
      return {batch, &piece};
  }
  return {nullptr, nullptr};
}

void DecodeMachine::State::LoseCall(MicroBatch& batch, CallPiece& piece,
                                    const absl::Status& status) {
  const uint32_t lost = ++batch.holders_lost;
  batches.MarkLost(batch, piece);
  if (lost >= kMaxHoldersLost) {
    FailRows(batch, absl::InternalError(absl::StrCat(
                        "step ", batches.step(), " layer ", batch.layer, ": ", lost,
                        " FFN holders failed on one call; the last said: ", status.message())));
  } else {
    FailIfAbandoned(batch);
  }
}

void DecodeMachine::State::FailRows(MicroBatch& batch, const absl::Status& status) {
  for (Sequence* sequence : batch.rows) {
    if (sequence->leaving.has_value()) continue;
    sequence->leaving = SequenceEnd{EndReason::kFailed, status};
    sequence->leaving_event = SequenceEventKind::kFailed;
  }
  AbandonPieces(batch);
  batches.Fail(batch);
}

void DecodeMachine::State::FailIfAbandoned(MicroBatch& batch) {
  const bool under_way = batch.state == MicroBatchState::kComputing || batch.in_flight();
  if (under_way || batch.state == MicroBatchState::kDone) return;
  const bool all_leave =
      std::all_of(batch.rows.begin(), batch.rows.end(),
                  [](const Sequence* sequence) { return sequence->leaving.has_value(); });
  if (all_leave) batches.Fail(batch);
}

bool DecodeMachine::State::IsBlocked(const MicroBatch& batch) const {
  return ChooseTarget(batch).holders.empty();
}

void DecodeMachine::State::Settle(Instant now) {
  kv_blocked_at.reset();
  if (batches.running() && batches.done()) FinishStep(now);
  SendCalls();
  bool blocked = false;
  if (batches.running()) {
    blocked = std::any_of(batches.unsent().begin(), batches.unsent().end(),
                          [this](const MicroBatch* batch) { return IsBlocked(*batch); });
  } else {
    blocked = running > 0 && !holders.RowLimit().has_value();
  }
  if (!blocked) {
    blocked_since = Instant::Never();
  } else if (blocked_since == Instant::Never()) {
    blocked_since = now;
  }
}

// When the first sequence has waited max_ffn_wait for a holder.
Instant DecodeMachine::State::FfnDeadline() const {
  if (blocked_since == Instant::Never()) return Instant::Never();
  if (batches.running()) return blocked_since + config.max_ffn_wait;
  Instant first = Instant::Never();
  for (const auto& [admitted, sequence] : sequences.all()) {
    if (sequence->state != SequenceState::kRunning) continue;
    first = std::min(first, std::max(sequence->running_since, blocked_since) + config.max_ffn_wait);
  }
  return first;
}

void DecodeMachine::State::EndBlocked(Instant now) {
  const std::string waited = absl::StrCat(" for ", config.max_ffn_wait.seconds(), " s");
  if (batches.running()) {
    const std::deque<MicroBatch*> unsent = batches.unsent();
    for (MicroBatch* const batch : unsent) {
      if (!IsBlocked(*batch)) continue;
      FailRows(*batch, absl::UnavailableError(
                           absl::StrCat("no FFN worker of layer ", batch->layer, waited)));
    }
    return;
  }
  const absl::Status status = absl::UnavailableError(absl::StrCat("no FFN group", waited));
  std::vector<SequenceKey> late;
  for (const auto& [admitted, sequence] : sequences.all()) {
    if (sequence->state != SequenceState::kRunning) continue;
    if (std::max(sequence->running_since, blocked_since) + config.max_ffn_wait <= now)
      late.push_back(sequence->key);
  }
  EndEach(late, SequenceEventKind::kFailed, {EndReason::kFailed, status});
}

}  // namespace tandem::step
