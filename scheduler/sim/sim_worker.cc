// A simulated worker's doors: commands of the router, streams of its peers, and what the step
// machines want told.

#include "scheduler/sim/sim_worker.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/cost/cost_table.h"
#include "scheduler/sim/sim_gateway.h"
#include "scheduler/sim/sim_router.h"

namespace tandem::sim {
namespace {

constexpr Duration kHeartbeat = Duration::Seconds(1);
constexpr Duration kRedial = Duration::Milliseconds(200);
constexpr Duration kGatewayLease = Duration::Seconds(5);
constexpr uint32_t kReplayMessages = 1024;
const step::StreamId kLoopback{0};

LinkSpec SpecOf(const cost::LinkSpeed& speed) {
  LinkSpec link;
  link.latency = Duration::FromSeconds(speed.latency_seconds);
  link.bytes_per_s = speed.bytes_per_s;
  return link;
}

}  // namespace

SimWorker::SimWorker(World& world, const WorkerSpec& spec, uint64_t incarnation)
    : world_(world),
      spec_(spec),
      id_(spec.name),
      incarnation_(incarnation),
      link_(SpecOf(spec.costs->link())),
      book_(std::max<uint32_t>(spec.kv_blocks, 1), std::max<uint32_t>(spec.block_tokens, 1)) {
  const model::ModelShape& shape = world.scenario.shape;
  const model::Precision& precision = spec.costs->precision();
  const uint32_t layers = static_cast<uint32_t>(shape.layers);
  ledger_.emplace(ledger::StageOf(spec.stages), world.Now());
  const bool own_ffn = spec.stages.contains(Stage::kFfn);
  kv_.assign(layers, std::vector<uint64_t>(size_t{book_.total_blocks()} * book_.block_tokens(), 0));
  if (spec.stages.contains(Stage::kPrefill)) {
    step::PrefillConfig config;
    config.layers = layers;
    config.chunk_tokens = spec.chunk_tokens;
    config.max_jobs = spec.prefill_slots;
    config.kv_row_bytes = cost::KvRowBytes(shape, precision);
    prefill_ = std::make_unique<step::PrefillMachine>(config, book_);
  }
  if (own_ffn) {
    step::FfnConfig config;
    config.layers = layers;
    config.max_rows = spec.max_handoff_rows;
    config.hidden_bytes = cost::F2aBytes(shape, precision, 1);
    config.shard = spec.shard;
    config.max_merge_wait = spec.max_merge_wait;
    ffn_ = std::make_unique<step::FfnMachine>(config);
  }
  if (!spec.stages.contains(Stage::kAttention)) return;
  step::DecodeConfig config;
  config.layers = layers;
  config.context_tokens = static_cast<uint32_t>(shape.context_tokens);
  config.max_sequences = spec.max_sequences;
  config.max_batch = spec.max_batch;
  config.max_micro_batches = own_ffn ? 1 : spec.max_micro_batches;
  config.micro_batches = spec.micro_batches;
  config.hidden_bytes = cost::F2aBytes(shape, precision, 1);
  config.end_tokens = {0};
  decode_ = std::make_unique<step::DecodeMachine>(config, book_);
  if (!own_ffn) return;
  callers_[kLoopback].worker = this;
  const absl::StatusOr<uint64_t> credit = ffn_->OpenStream(kLoopback, spec.max_batch);
  TANDEM_CHECK(credit.ok());
  decode_->SetGroup(step::WholeHolders({id_.value()}), world.Now());
  decode_->OnHolderUp(id_.value(), *credit, std::min(spec.max_batch, spec.max_handoff_rows),
                      world.Now());
}

SimWorker::~SimWorker() = default;

LinkSpec SimWorker::LinkTo(const SimWorker& peer) const {
  return SpecOf(spec_.costs->link().With(peer.spec_.costs->link()));
}

void SimWorker::Start() {
  BookIdle();
  DialRouter();
  Beat();
}

void SimWorker::Kill() {
  if (!std::exchange(alive_, false)) return;
  world_.AddLedger(id_.value(), ledger_->Snapshot(world_.Now()));
  if (router_) router_->DiallerGone();
  for (auto& [id, gateway] : gateways_) {
    if (gateway.stream) gateway.stream->AnswererGone();
  }
  for (auto& [id, link] : links_) link.stream->DiallerGone();
  for (auto& [id, stream] : kv_streams_) stream->DiallerGone();
  for (const std::weak_ptr<Stream>& caller : kv_callers_) {
    if (const std::shared_ptr<Stream> stream = caller.lock()) stream->AnswererGone();
  }
  for (auto& [id, caller] : callers_) {
    if (caller.stream) caller.stream->AnswererGone();
  }
}

bool SimWorker::Idle() const {
  return (!decode_ || decode_->sequences() == 0) && (!prefill_ || prefill_->jobs() == 0) &&
         (!ffn_ || !ffn_->HasWork());
}

uint64_t SimWorker::leaked_blocks() const {
  return Idle() && !busy_ ? book_.total_blocks() - book_.free_blocks() : 0;
}

// ---- The router.

void SimWorker::DialRouter() {
  if (!alive_ || (router_ && router_->open())) return;
  SimRouter* const router = world_.router.get();
  if (!router->up()) {
    world_.time.CallAt(world_.Now() + kRedial, [this] { DialRouter(); });
    return;
  }
  router_ = world_.Open(
      world_.scenario.control_link,
      [this](const Stream*) {
        world_.time.CallAt(world_.Now() + kRedial, [this] { DialRouter(); });
      },
      [router, id = id_](const Stream* stream) { router->OnWorkerBroken(id, stream); });
  WorkerDescription me;
  me.id = id_;
  me.incarnation = incarnation_;
  me.pool = "pool";
  me.model = world_.scenario.shape.name;
  me.stages = spec_.stages;
  me.address = absl::StrCat(id_.value(), ":1");
  const model::ModelShape& shape = world_.scenario.shape;
  me.dimensions = {
      static_cast<uint32_t>(shape.layers),     static_cast<uint32_t>(shape.hidden),
      static_cast<uint32_t>(shape.kv_heads),   static_cast<uint32_t>(shape.head_dim),
      static_cast<uint32_t>(shape.vocabulary), static_cast<uint32_t>(shape.context_tokens)};
  if (prefill_) me.numerics.prefill = "hash";
  if (decode_) me.numerics.attention = "hash";
  if (ffn_) me.numerics.ffn = absl::StrCat("hash/", GeometryOf(spec_.shard.columns));
  me.shard = spec_.shard;
  if (decode_)
    me.capacity = {book_.total_blocks(), book_.block_tokens(), spec_.max_sequences, 0, 0};
  if (prefill_) me.capacity.prefill_slots = spec_.prefill_slots;
  if (ffn_) me.capacity.max_handoff_rows = spec_.max_handoff_rows;
  me.shard_epoch = incarnation_;
  me.live = live();
  router_->ToAnswerer(
      256, [router, this, stream = router_, me] { router->OnRegister(*this, stream, me); });
}

void SimWorker::Report(control::Event event) {
  if (!router_) return;
  router_->ToAnswerer(
      96, [router = world_.router.get(), event = std::move(event)] { router->OnEvent(event); });
}

void SimWorker::Beat() {
  if (!alive_) return;
  WorkerLoad load;
  load.kv_blocks_free = book_.free_blocks();
  load.sequences = decode_ ? decode_->sequences() : 0;
  load.prefills = prefill_ ? prefill_->jobs() : 0;
  load.tokens_total = decode_ ? decode_->tokens_total() : 0;
  load.draining = draining_;
  Report(control::WorkerHeartbeat{id_, incarnation_, load});
  world_.time.CallAt(world_.Now() + kHeartbeat, [this] { Beat(); });
}

void SimWorker::Answer(control::CommandId command, const absl::Status& status) {
  Report(control::CommandAnswered{id_, incarnation_, command, status});
}

void SimWorker::OnCommand(const control::Command& command) {
  if (!alive_) return;
  if (const auto* decode = std::get_if<control::SendDecode>(&command)) {
    Answer(decode->command, OnDecode(*decode));
  } else if (const auto* prefill = std::get_if<control::SendPrefill>(&command)) {
    Answer(prefill->command, OnPrefill(*prefill));
  } else if (const auto* release = std::get_if<control::SendRelease>(&command)) {
    OnRelease(*release);
    Answer(release->command, absl::OkStatus());
  } else if (const auto* group = std::get_if<control::SendSetGroup>(&command)) {
    SetGroup(*group);
    Answer(group->command, absl::OkStatus());
  } else if (const auto* drain = std::get_if<control::SendDrain>(&command)) {
    draining_ = true;
    Answer(drain->command, absl::OkStatus());
  }
  Settle();
}

absl::Status SimWorker::OnDecode(const control::SendDecode& decode) {
  if (draining_)
    return absl::UnavailableError(absl::StrCat("worker ", id_.value(), " is draining"));
  Expect(decode.gateway);
  step::DecodeRequest request;
  request.reservation = decode.reservation;
  request.gateway = decode.gateway;
  request.request = decode.request;
  request.choices = decode.choices;
  request.prompt_ids = decode.prompt_ids;
  request.sampling = decode.sampling;
  request.stop = decode.stop;
  request.local_prefill = decode.local_prefill;
  request.lease = decode.reservation_lease;
  return decode_->Admit(std::move(request), world_.Now());
}

absl::Status SimWorker::OnPrefill(const control::SendPrefill& prefill) {
  if (draining_)
    return absl::UnavailableError(absl::StrCat("worker ", id_.value(), " is draining"));
  const absl::Status queued =
      prefill_->Enqueue({prefill.reservation, prefill.sequence, prefill.ids, nullptr});
  if (!queued.ok()) return queued;
  targets_[prefill.reservation] = {prefill.attention_worker, false};
  std::shared_ptr<Stream>& stream = kv_streams_[prefill.attention_worker];
  if (stream && stream->open()) return queued;
  // Also to a worker that is down: the stream then breaks at once.
  SimWorker* const to = world_.UpWorker(prefill.attention_worker);
  stream = world_.Open(
      to == nullptr ? link_ : LinkTo(*to),
      [this, id = prefill.attention_worker](const Stream* s) { OnAttentionBroken(id, s); },
      nullptr);
  if (to != nullptr) {
    to->OnKvStream(stream);
  } else {
    stream->Break();
  }
  return queued;
}

void SimWorker::OnRelease(const control::SendRelease& release) {
  if (decode_) {
    if (!release.reservation.empty())
      decode_->Release(release.reservation, release.reason, world_.Now());
    for (const SequenceKey& key : release.sequences)
      decode_->Stop(key, 0, release.reason, world_.Now());
  }
  if (prefill_ && !release.reservation.empty()) prefill_->Cancel(release.reservation);
}

// ---- Gateways.

SimWorker::Gateway& SimWorker::Expect(const GatewayId& id) {
  const auto [found, added] = gateways_.try_emplace(
      id, Gateway{step::TokenOutbox(kReplayMessages, kGatewayLease), nullptr, nullptr, 0, {}});
  if (added) found->second.outbox.Detach(world_.Now());
  return found->second;
}

void SimWorker::OnGatewayStream(SimGateway& gateway, const std::shared_ptr<Stream>& stream,
                                const std::vector<step::ResumePoint>& resume) {
  if (!alive_) return;
  Gateway& end = Expect(gateway.id());
  if (end.stream) end.stream->AnswererGone();
  end.gateway = &gateway;
  end.stream = stream;
  end.outbox.Attach(resume);
  // What the gateway waits for and nobody here knows, ended with an older life of this worker.
  const std::vector<SequenceKey> held = live();
  for (const step::ResumePoint& point : resume) {
    if (std::find(held.begin(), held.end(), point.sequence) != held.end() ||
        end.ends.contains(point.sequence))
      continue;
    step::Emit gone{gateway.id(), point.sequence, point.received, std::nullopt,
                    SequenceEnd{EndReason::kFailed, absl::UnavailableError("not held here")}};
    emits_[gateway.id()].push_back(std::move(gone));
  }
  SendTokens(end);
  Settle();
}

void SimWorker::OnGatewayBroken(const GatewayId& id, const Stream* stream) {
  const auto found = gateways_.find(id);
  if (!alive_ || found == gateways_.end() || found->second.stream.get() != stream) return;
  found->second.stream.reset();
  found->second.outbox.Detach(world_.Now());
  Settle();
}

void SimWorker::BreakTokens() {
  for (auto& [id, gateway] : gateways_) {
    if (gateway.stream) gateway.stream->Break();
  }
}

void SimWorker::OnTokenAck(const GatewayId& id, uint64_t step) {
  const auto found = gateways_.find(id);
  if (found == gateways_.end()) return;
  found->second.outbox.Acknowledge(step);
  std::erase_if(found->second.ends, [step](const auto& end) { return end.second <= step; });
  if (draining_) Settle();
}

void SimWorker::OnStop(const SequenceKey& sequence, uint32_t position, EndReason reason) {
  decode_->Stop(sequence, position, reason, world_.Now());
  Settle();
}

void SimWorker::Push(const GatewayId& id, std::vector<step::Emit> emits) {
  const auto found = gateways_.find(id);
  if (found == gateways_.end()) return;  // its lease is over
  Gateway& gateway = found->second;
  gateway.pushed++;
  for (const step::Emit& emit : emits) {
    if (emit.end.has_value()) gateway.ends[emit.sequence] = gateway.pushed;
  }
  if (!gateway.outbox.Push(std::move(emits))) {
    decode_->EndAllOf(id, {EndReason::kFailed, GatewayOverloadedError()}, world_.Now());
  }
  SendTokens(gateway);
}

void SimWorker::SendTokens(Gateway& gateway) {
  for (const step::OutboxMessage& message : gateway.outbox.TakeToSend()) {
    if (!gateway.stream) continue;
    gateway.stream->ToDialler(
        32 + 16 * message.emits.size(),
        [to = gateway.gateway, id = id_, message] { to->OnTokens(id, message); });
  }
}

// ---- KV.

void SimWorker::PushRows(const step::PushKv& push) {
  const auto stream = kv_streams_.find(targets_.at(push.reservation).attention);
  if (stream == kv_streams_.end() || !stream->second->open())
    return;  // its loss is told by OnAttentionBroken
  SimWorker* const to = world_.UpWorker(stream->first);
  if (to == nullptr) return;
  KvFrame frame{push.reservation, push.sequence.attempt, push.layer, push.first_position, {}};
  for (uint32_t i = 0; i < push.count; i++)
    frame.rows.push_back(KvAt(*push.blocks, push.first_position + i, push.layer));
  const uint64_t bytes =
      push.count * cost::KvRowBytes(spec_.costs->shape(), spec_.costs->precision());
  stream->second->ToAnswerer(
      bytes, [to, this, frame, s = stream->second] { to->OnKvFrame(frame, s, *this); });
}

void SimWorker::OnKvFrame(const KvFrame& frame, const std::shared_ptr<Stream>& stream,
                          SimWorker& from) {
  const uint32_t count = static_cast<uint32_t>(frame.rows.size());
  const absl::StatusOr<const step::BlockTable*> blocks = decode_->KvDestination(
      frame.reservation, frame.attempt, frame.layer, frame.first_position, count);
  absl::StatusOr<uint32_t> positions = 0u;
  if (!blocks.ok()) {
    positions = blocks.status();
  } else {
    for (uint32_t i = 0; i < count; i++)
      KvAt(**blocks, frame.first_position + i, frame.layer) = frame.rows[i];
    positions = decode_->OnKvRows(frame.reservation, frame.layer, frame.first_position, count,
                                  world_.Now());
  }
  stream->ToDialler(32, [&from, reservation = frame.reservation, layer = frame.layer, positions] {
    from.OnKvAck(reservation, layer, positions);
  });
  Settle();
}

void SimWorker::OnKvAck(const ReservationId& reservation, uint32_t layer,
                        const absl::StatusOr<uint32_t>& positions) {
  if (positions.ok()) {
    prefill_->OnAck(reservation, layer, *positions);
  } else {
    prefill_->OnPeerFailed(reservation, positions.status());
  }
  Settle();
}

void SimWorker::OnAttentionBroken(const WorkerId& attention, const Stream* stream) {
  const auto found = kv_streams_.find(attention);
  if (!alive_ || found == kv_streams_.end() || found->second.get() != stream) return;
  kv_streams_.erase(found);
  std::vector<ReservationId> lost;
  for (const auto& [reservation, target] : targets_) {
    if (target.attention == attention && !target.local) lost.push_back(reservation);
  }
  for (const ReservationId& reservation : lost) {
    prefill_->OnPeerFailed(
        reservation, absl::UnavailableError(absl::StrCat("attention worker ", attention.value(),
                                                         ": its stream broke")));
  }
  Settle();
}

}  // namespace tandem::sim
