#include "workers/engine/decode_engine.h"

#include <absl/types/span.h>

#include <algorithm>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"

namespace tandem {
namespace {

step::DecodeConfig MachineConfig(const EngineContext& context) {
  const EngineConfig& config = context.config;
  step::DecodeConfig machine;
  machine.layers = context.model().layers;
  machine.context_tokens = context.model().context_tokens;
  machine.max_sequences = config.max_sequences;
  machine.max_batch = config.max_batch;
  // An FFN on the same device cannot overlap with attention.
  machine.max_micro_batches = context.Runs(Stage::kFfn) ? 1 : config.max_micro_batches;
  machine.micro_batches = config.micro_batches;
  machine.hidden_bytes = uint64_t{context.model().hidden} * sizeof(float);
  machine.end_tokens = context.backend.info().end_tokens;
  machine.max_ffn_wait = config.max_ffn_wait;
  return machine;
}

}  // namespace

DecodeEngine::DecodeEngine(EngineContext& context, step::KvBook& book,
                           ActivationConnector& activation)
    : context_(context),
      machine_(MachineConfig(context), book),
      group_(context, activation, context.config.max_batch,
             {[this](const std::string& holder, const HandoffGrantInfo& grant) {
                machine_.OnHolderUp(holder, grant.credit_bytes, grant.max_rows, context_.Now());
                CarryOut();
              },
              [this](const std::string& holder, F2a& reply) { OnReply(holder, reply); },
              [this](const std::string& holder, const absl::Status& status) {
                machine_.OnHolderLost(holder, status, context_.Now());
                CarryOut();
              }}),
      gateways_(context) {}

absl::Status DecodeEngine::Admit(step::DecodeRequest request) {
  if (request.local_prefill && prefill_ == nullptr) {
    return absl::FailedPreconditionError(absl::StrCat("worker ", context_.config.worker.value(),
                                                      " has no prefill stage for a local prefill"));
  }
  RETURN_IF_ERROR(gateways_.Expect(request.gateway));
  const absl::Status admitted = machine_.Admit(std::move(request), context_.Now());
  live_version_++;
  CarryOut();
  return admitted;
}

void DecodeEngine::Release(const ReservationId& reservation,
                           const std::vector<SequenceKey>& sequences, EndReason reason) {
  const Instant now = context_.Now();
  if (!reservation.empty()) machine_.Release(reservation, reason, now);
  for (const SequenceKey& sequence : sequences) machine_.Stop(sequence, 0, reason, now);
  CarryOut();
}

void DecodeEngine::SetGroup(uint64_t router_epoch, uint64_t version,
                            std::vector<FfnEndpoint> holders, Answer answer) {
  const std::pair<uint64_t, uint64_t> asked(router_epoch, version);
  if (asked < group_version_) {
    answer(absl::FailedPreconditionError(
        absl::StrCat("group version (", router_epoch, ", ", version, ") is older than (",
                     group_version_.first, ", ", group_version_.second, ")")));
    return;
  }
  group_version_ = asked;
  std::vector<step::GroupHolder> group;
  group.reserve(holders.size());
  for (const FfnEndpoint& holder : holders) group.push_back({holder.worker.value(), holder.shard});
  machine_.SetGroup(std::move(group), context_.Now());
  CarryOut();
  group_.SetGroup(std::move(holders), std::move(answer));
}

KvAckInfo DecodeEngine::OnKvFrame(const KvRows& frame) {
  KvAckInfo ack{frame.reservation, frame.attempt, frame.layer, 0, absl::OkStatus()};
  if (frame.cancel)
    return ack;  // nothing more is written; the reservation waits for the next prefill worker
  const Instant now = context_.Now();
  const absl::StatusOr<const step::BlockTable*> blocks = machine_.KvDestination(
      frame.reservation, frame.attempt, frame.layer, frame.first_position, frame.count);
  ack.status = blocks.status();
  if (ack.status.ok() && frame.rows.size() != frame.count * context_.backend.info().kv_row_bytes) {
    ack.status = absl::InvalidArgumentError(
        absl::StrCat("KV frame of ", frame.count, " rows: ", frame.rows.size(), " B, not ",
                     frame.count * context_.backend.info().kv_row_bytes));
  }
  if (!ack.status.ok()) {
    context_.counters.kv_frames_dropped++;
    return ack;
  }
  ack.status = context_.backend.WriteKv(frame.layer, **blocks, frame.first_position, frame.count,
                                        frame.rows);
  if (!ack.status.ok()) return ack;

  Arrival& arrival = arrivals_[frame.reservation];
  if (!arrival.first_frame.has_value()) arrival.first_frame = now;
  arrival.transfer_seconds = (now - *arrival.first_frame).seconds();
  if (!frame.prefill_worker.empty()) {
    arrival.prefill = {Stage::kPrefill, frame.prefill_worker, frame.prefill_seconds,
                       frame.prefill_calls};
  }
  ack.positions =
      machine_.OnKvRows(frame.reservation, frame.layer, frame.first_position, frame.count, now);
  CarryOut();
  return ack;
}

void DecodeEngine::OnLocalPrefillDone(const ReservationId& reservation, const PrefillCost& cost) {
  arrivals_[reservation].prefill = {Stage::kPrefill, context_.config.worker.value(), cost.seconds,
                                    cost.calls};
  machine_.OnLocalPrefillDone(reservation, context_.Now());
  CarryOut();
  arrivals_.erase(reservation);  // freed meanwhile
}

void DecodeEngine::OnLocalPrefillFailed(const ReservationId& reservation,
                                        const absl::Status& status) {
  machine_.OnLocalPrefillFailed(reservation, status, context_.Now());
  CarryOut();
}

void DecodeEngine::Attach(const GatewayId& gateway, const std::vector<step::ResumePoint>& resume,
                          std::shared_ptr<TokenSink> sink) {
  gateways_.Attach(gateway, resume, std::move(sink), machine_.live());
}

void DecodeEngine::Stop(const SequenceKey& sequence, uint32_t position, EndReason reason) {
  machine_.Stop(sequence, position, reason, context_.Now());
  CarryOut();
}

void DecodeEngine::EndAll(const absl::Status& status) {
  // A sequence in a step ends with it, and the step with the loss of the calls that it waits for.
  machine_.SetGroup({}, context_.Now());
  // Not failed: the gateways have what was emitted, and go on with it elsewhere.
  machine_.EndAll({EndReason::kPreempted, absl::OkStatus()}, context_.Now());
  group_.CloseAll(status);
  CarryOut();
  gateways_.CloseAll(status);
}

Instant DecodeEngine::NextDeadline() const {
  return std::min({machine_.NextDeadline(), group_.NextDeadline(), gateways_.NextDeadline()});
}

void DecodeEngine::OnTime(Instant now) {
  machine_.OnTime(now);
  group_.OnTime(now);
  for (const GatewayId& gateway : gateways_.TakeExpired(now)) {
    machine_.EndAllOf(gateway, {EndReason::kCancelled, absl::OkStatus()}, now);
  }
  CarryOut();
}

// An effect may call the machine, which gives new effects: those wait for the next round, in order.
void DecodeEngine::CarryOut() {
  if (carrying_out_) return;
  carrying_out_ = true;
  for (;;) {
    std::vector<step::DecodeEffect> effects = machine_.TakeEffects();
    if (effects.empty()) break;
    for (step::DecodeEffect& effect : effects) {
      std::visit([this](auto& what) { CarryOut(what); }, effect);
    }
    SendTokens();
  }
  group_.SetLive(machine_.sequences() > 0);
  carrying_out_ = false;
}

void DecodeEngine::CarryOut(step::StartLocalPrefill& start) {
  const absl::Status queued = prefill_->PrefillLocal(
      {start.reservation, start.sequence, std::move(start.ids), start.blocks});
  if (!queued.ok()) machine_.OnLocalPrefillFailed(start.reservation, queued, context_.Now());
}

void DecodeEngine::CarryOut(step::ReservationFreed& freed) {
  arrivals_.erase(freed.reservation);
  if (freed.local_prefill) prefill_->Cancel(freed.reservation);
}

void DecodeEngine::CarryOut(step::CopyBlocks& copy) {
  // The blocks are this device's own and in range: only a broken device refuses.
  TANDEM_CHECK(context_.backend.CopyBlocks(copy.copies).ok());
}

void DecodeEngine::CarryOut(step::HolderSuspected&) {
}  // the group, which lost the holder, has told the router

void DecodeEngine::CarryOut(step::SequencesStarted& started) {
  const auto arrival = arrivals_.find(started.reservation);
  if (arrival == arrivals_.end()) return;
  // The prompt was prefilled once for all choices: the first carries its cost.
  if (!started.sequences.empty()) {
    const SequenceKey& first = started.sequences.front();
    if (arrival->second.prefill.calls > 0) costs_.Charge(first, arrival->second.prefill);
    costs_.ChargeKvTransfer(first, arrival->second.transfer_seconds);
  }
  arrivals_.erase(arrival);
}

void DecodeEngine::CarryOut(step::Emit& emit) {
  if (emit.token.has_value()) {
    for (const StageTime& share : step_cost_.Share(context_.config.worker.value()))
      costs_.Charge(emit.sequence, share);
    const std::optional<Duration> gap = costs_.NoteToken(emit.sequence, context_.line.Now());
    if (gap.has_value())
      context_.counters.token_gaps.Add(kTokenBuckets, context_.line.DeviceTime(*gap).seconds());
  }
  if (emit.end.has_value()) {
    live_version_++;
    bills_[emit.gateway][emit.sequence] = costs_.Take(emit.sequence);
    context_.listener.OnEnded(emit.sequence, *emit.end);
  }
  emits_[emit.gateway].push_back(std::move(emit));
}

void DecodeEngine::SendTokens() {
  std::map<GatewayId, std::vector<step::Emit>> emits;
  emits.swap(emits_);
  std::map<GatewayId, std::map<SequenceKey, SequenceCost>> bills;
  bills.swap(bills_);
  for (auto& [gateway, messages] : emits) {
    if (gateways_.Push(gateway, std::move(messages), std::move(bills[gateway]))) continue;
    const SequenceEnd overloaded{EndReason::kFailed, GatewayOverloadedError()};
    machine_.EndAllOf(gateway, overloaded, context_.Now());
  }
}

}  // namespace tandem
