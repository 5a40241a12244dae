// A simulated worker between events: what the step machines want done, its FFN group, its alarm.

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/cost/cost_table.h"
#include "scheduler/sim/hash_model.h"
#include "scheduler/sim/sim_worker.h"

namespace tandem::sim {
namespace {

constexpr Duration kRedial = Duration::Milliseconds(200);
const step::StreamId kLoopback{0};

}  // namespace

// ---- The FFN group, at the attention worker.

void SimWorker::SetGroup(const control::SendSetGroup& group) {
  group_.clear();
  std::vector<step::GroupHolder> holders;
  for (const control::FfnHolder& holder : group.holders) {
    group_.push_back(holder.worker);
    holders.push_back({holder.worker.value(), holder.shard});
  }
  decode_->SetGroup(std::move(holders), world_.Now());
  for (const WorkerId& holder : group_) DialHolder(holder);
}

void SimWorker::DialHolder(const WorkerId& holder) {
  if (!alive_ || links_.contains(holder) ||
      std::find(group_.begin(), group_.end(), holder) == group_.end())
    return;
  SimWorker* const to = world_.UpWorker(holder);
  if (to == nullptr) {
    world_.time.CallAt(world_.Now() + kRedial, [this, holder] { DialHolder(holder); });
    return;
  }
  const std::shared_ptr<Stream> stream = world_.Open(
      LinkTo(*to), [this, holder](const Stream* s) { OnHolderBroken(holder, s); },
      [to](const Stream* s) { to->OnCallerBroken(s); });
  links_[holder] = {to, stream, {}};
  stream->ToAnswerer(64, [to, stream, this] { to->OnHandoffStream(stream, *this); });
}

void SimWorker::OnGrant(const WorkerId& holder, step::StreamId stream, uint64_t credit_bytes,
                        uint32_t max_rows) {
  const auto link = links_.find(holder);
  if (link == links_.end()) return;
  link->second.id = stream;
  decode_->OnHolderUp(holder.value(), credit_bytes, max_rows, world_.Now());
  Settle();
}

void SimWorker::OnHolderBroken(const WorkerId& holder, const Stream* stream) {
  const auto link = links_.find(holder);
  if (!alive_ || link == links_.end() || link->second.stream.get() != stream) return;
  links_.erase(link);
  decode_->OnHolderLost(holder.value(), absl::UnavailableError("its stream broke"), world_.Now());
  if (std::find(group_.begin(), group_.end(), holder) != group_.end()) {
    Report(control::ShardLost{id_, holder, "its stream broke"});
    world_.time.CallAt(world_.Now() + kRedial, [this, holder] { DialHolder(holder); });
  }
  Settle();
}

void SimWorker::SendCall(const step::SendA2f& send) {
  const std::vector<uint64_t>& rows = rows_.at({send.call.step, send.call.micro_batch});
  sent_[{WorkerId(send.holder), send.call}] = world_.Now();
  if (send.crosses_from != 0) {
    world_.report.class_crossings++;
    world_.Record(
        absl::StrCat("crossing ", id_.value(), " ", send.crosses_from, " to ", send.columns));
  }
  if (send.holder == id_.value()) {
    const absl::Status queued = ffn_->Enqueue({kLoopback, send.call, send.rows, world_.Now()});
    TANDEM_CHECK(queued.ok());
    calls_[{kLoopback, send.call}] = rows;
    return;
  }
  const auto link = links_.find(WorkerId(send.holder));
  if (link == links_.end()) return;
  const uint64_t bytes =
      cost::A2fBytes(spec_.costs->shape(), spec_.costs->precision(), send.call.layer, send.rows);
  link->second.stream->ToAnswerer(bytes, [to = link->second.worker, id = link->second.id,
                                          call = send.call, rows] { to->OnA2f(id, call, rows); });
}

void SimWorker::OnF2a(const WorkerId& holder, const F2aReply& reply) {
  if (!reply.status.ok()) {
    decode_->OnFfnRefused(holder.value(), reply.call, reply.status, world_.Now());
  } else if (const auto taken =
                 decode_->OnFfnReply(holder.value(), reply.call, reply.shared, world_.Now())) {
    TakeRows(*taken, reply);
    if (taken->last) BookReply(holder, reply);
  }
  sent_.erase({holder, reply.call});
  Settle();
}

void SimWorker::TakeRows(const step::TakenReply& taken, const F2aReply& reply) {
  const std::pair<uint64_t, uint32_t> slot(reply.call.step, reply.call.micro_batch);
  std::vector<std::vector<uint64_t>>& pieces = partials_[slot];
  pieces.resize(taken.columns);
  pieces[taken.column] = reply.rows;
  if (!taken.last) return;
  std::vector<uint64_t>& rows = rows_[slot];
  rows = pieces.front();
  for (size_t piece = 1; piece < pieces.size(); piece++) {
    for (size_t i = 0; i < rows.size(); i++) rows[i] = FoldPiece(rows[i], pieces[piece].at(i));
  }
  partials_.erase(slot);
}

// ---- The FFN worker.

void SimWorker::OnHandoffStream(const std::shared_ptr<Stream>& stream, SimWorker& attention) {
  const step::StreamId id{next_stream_++};
  const uint32_t max_rows = std::min(attention.spec_.max_batch, spec_.max_handoff_rows);
  const absl::StatusOr<uint64_t> credit = ffn_->OpenStream(id, max_rows);
  if (!credit.ok()) {
    stream->AnswererGone();
    return;
  }
  callers_[id] = {&attention, stream};
  stream->ToDialler(64, [&attention, me = id_, id, credit = *credit, max_rows] {
    attention.OnGrant(me, id, credit, max_rows);
  });
}

void SimWorker::OnA2f(step::StreamId stream, const step::CallId& call, std::vector<uint64_t> rows) {
  const absl::Status queued =
      ffn_->Enqueue({stream, call, static_cast<uint32_t>(rows.size()), world_.Now()});
  if (queued.ok()) {
    calls_[{stream, call}] = std::move(rows);
  } else {
    const Caller& caller = callers_.at(stream);
    F2aReply refusal{call, {}, {}, {}, false, queued};
    caller.stream->ToDialler(64,
                             [to = caller.worker, me = id_, refusal] { to->OnF2a(me, refusal); });
  }
  Settle();
}

void SimWorker::OnCallerBroken(const Stream* stream) {
  if (!alive_) return;
  const auto found = std::find_if(callers_.begin(), callers_.end(), [stream](const auto& caller) {
    return caller.second.stream.get() == stream;
  });
  if (found == callers_.end()) return;
  ffn_->CloseStream(found->first);
  callers_.erase(found);
  Settle();
}

// ---- Between events.

void SimWorker::Settle() {
  if (!alive_ || std::exchange(settling_, true)) return;
  do {
    while (TakeEffects()) {}
    for (auto& [gateway, emits] : std::exchange(emits_, {})) Push(gateway, std::move(emits));
  } while (StartTask() || !emits_.empty());
  settling_ = false;
  if (leaked_blocks() > 0) {
    world_.Violation(
        absl::StrCat("worker ", id_.value(), ": ", leaked_blocks(), " KV blocks are nobody's"));
  }
  BookIdle();
  ArmAlarm();
  ExitIfDrained();
}

bool SimWorker::TakeEffects() {
  const std::vector<step::DecodeEffect> decode =
      decode_ ? decode_->TakeEffects() : std::vector<step::DecodeEffect>();
  for (const step::DecodeEffect& effect : decode) On(effect);
  const std::vector<step::PrefillEffect> prefill =
      prefill_ ? prefill_->TakeEffects() : std::vector<step::PrefillEffect>();
  // Pushes first: their block tables hold until the machine is called again.
  for (const step::PrefillEffect& effect : prefill) {
    if (const auto* push = std::get_if<step::PushKv>(&effect)) PushRows(*push);
  }
  for (const step::PrefillEffect& effect : prefill) On(effect);
  return !decode.empty() || !prefill.empty();
}

void SimWorker::On(const step::DecodeEffect& effect) {
  if (const auto* start = std::get_if<step::StartLocalPrefill>(&effect)) {
    targets_[start->reservation] = {id_, true};
    const absl::Status queued =
        prefill_->Enqueue({start->reservation, start->sequence, start->ids, start->blocks});
    if (!queued.ok()) decode_->OnLocalPrefillFailed(start->reservation, queued, world_.Now());
  } else if (const auto* freed = std::get_if<step::ReservationFreed>(&effect)) {
    if (freed->local_prefill) prefill_->Cancel(freed->reservation);
  } else if (const auto* copy = std::get_if<step::CopyBlocks>(&effect)) {
    for (const step::KvBook::BlockCopy& block : copy->copies) {
      const size_t tokens = book_.block_tokens();
      for (std::vector<uint64_t>& layer : kv_) {
        std::copy_n(layer.begin() + block.from * tokens, tokens, layer.begin() + block.to * tokens);
      }
    }
  } else if (const auto* send = std::get_if<step::SendA2f>(&effect)) {
    SendCall(*send);
  } else if (const auto* suspected = std::get_if<step::HolderSuspected>(&effect)) {
    Report(control::ShardLost{id_, WorkerId(suspected->holder),
                              std::string(suspected->status.message())});
  } else if (const auto* started = std::get_if<step::SequencesStarted>(&effect)) {
    if (prefill_ && !started->sequences.empty())
      Report(control::SequencePrefilled{id_, started->sequences.front()});
  } else if (const auto* emit = std::get_if<step::Emit>(&effect)) {
    emits_[emit->gateway].push_back(*emit);
    if (emit->end.has_value()) Report(control::SequenceEnded{id_, emit->sequence, *emit->end});
  }
}

void SimWorker::On(const step::PrefillEffect& effect) {
  if (const auto* done = std::get_if<step::PrefillDone>(&effect)) {
    const bool local = targets_.at(done->reservation).local;
    targets_.erase(done->reservation);
    chunk_.erase(done->reservation);
    if (local) return decode_->OnLocalPrefillDone(done->reservation, world_.Now());
    Report(control::SequencePrefilled{id_, done->sequence});
  } else if (const auto* failed = std::get_if<step::PrefillFailed>(&effect)) {
    const bool local = targets_.at(failed->reservation).local;
    targets_.erase(failed->reservation);
    chunk_.erase(failed->reservation);
    if (local)
      return decode_->OnLocalPrefillFailed(failed->reservation, failed->status, world_.Now());
    Report(control::SequenceEnded{id_, failed->sequence, {EndReason::kFailed, failed->status}});
  } else if (const auto* cancel = std::get_if<step::CancelPush>(&effect)) {
    targets_.erase(cancel->reservation);
    chunk_.erase(cancel->reservation);
  }
}

void SimWorker::ArmAlarm() {
  Instant due = decode_ ? decode_->NextDeadline() : Instant::Never();
  if (ffn_ && !busy_) due = std::min(due, ffn_->ReadyAt());
  for (const auto& [id, gateway] : gateways_) due = std::min(due, gateway.outbox.lease_end());
  if (due == Instant::Never() || (armed_ <= due && armed_ > world_.Now())) return;
  armed_ = due;
  world_.time.CallAt(due, [this, due] {
    if (alive_ && armed_ == due) OnAlarm();
  });
}

void SimWorker::OnAlarm() {
  armed_ = Instant::Never();
  if (decode_ && decode_->NextDeadline() <= world_.Now()) decode_->OnTime(world_.Now());
  std::vector<GatewayId> expired;
  for (const auto& [id, gateway] : gateways_) {
    if (gateway.outbox.lease_end() <= world_.Now()) expired.push_back(id);
  }
  for (const GatewayId& id : expired) {
    decode_->EndAllOf(id, {EndReason::kCancelled, absl::OkStatus()}, world_.Now());
    gateways_.erase(id);
  }
  Settle();
}

void SimWorker::ExitIfDrained() {
  if (!draining_ || busy_ || !Idle()) return;
  for (const auto& [id, gateway] : gateways_) {
    if (!gateway.outbox.idle()) return;
  }
  Kill();
  world_.WorkerExited(id_);
}

}  // namespace tandem::sim
