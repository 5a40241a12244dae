#include "workers/rpc/convert.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>

#include <cmath>
#include <utility>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"
#include "services/runtime/status_map.h"
#include "services/runtime/tco_words.h"
#include "workers/rpc/limits.h"

namespace tandem {
namespace {

template <typename... Args>
absl::Status Bad(const Args&... args) {
  return absl::InvalidArgumentError(absl::StrCat(args...));
}

absl::Status CheckName(absl::string_view field, const std::string& value) {
  if (value.empty() || value.size() > kMaxNameBytes) {
    return Bad(field, ": ", value.size(), " bytes, must be 1 to ", kMaxNameBytes);
  }
  return absl::OkStatus();
}

absl::Status CheckCount(absl::string_view field, size_t count, size_t least, size_t most) {
  if (count < least || count > most)
    return Bad(field, ": ", count, " entries, must be ", least, " to ", most);
  return absl::OkStatus();
}

// `value` in [least, most]; false for NaN.
absl::Status CheckRange(absl::string_view field, float value, float least, float most) {
  if (!(value >= least && value <= most))
    return Bad(field, ": ", value, ", must be ", least, " to ", most);
  return absl::OkStatus();
}

absl::StatusOr<Sampling> ToSampling(const v1::Sampling& in) {
  Sampling out;
  if (in.has_temperature()) out.temperature = in.temperature();
  if (in.has_top_k()) out.top_k = in.top_k();
  if (in.has_top_p()) out.top_p = in.top_p();
  if (in.has_min_p()) out.min_p = in.min_p();
  if (in.has_repetition_penalty()) out.repetition_penalty = in.repetition_penalty();
  if (in.has_presence_penalty()) out.presence_penalty = in.presence_penalty();
  if (in.has_frequency_penalty()) out.frequency_penalty = in.frequency_penalty();
  RETURN_IF_ERROR(CheckRange("temperature", out.temperature, 0, 2));
  RETURN_IF_ERROR(CheckRange("top_p", out.top_p, std::nextafter(0.0f, 1.0f), 1));
  RETURN_IF_ERROR(CheckRange("min_p", out.min_p, 0, 1));
  RETURN_IF_ERROR(
      CheckRange("repetition_penalty", out.repetition_penalty, std::nextafter(0.0f, 1.0f), 1e6f));
  RETURN_IF_ERROR(CheckRange("presence_penalty", out.presence_penalty, -2, 2));
  RETURN_IF_ERROR(CheckRange("frequency_penalty", out.frequency_penalty, -2, 2));
  RETURN_IF_ERROR(CheckCount("logit_bias", in.logit_bias_size(), 0, kMaxLogitBiases));
  for (const auto& [id, bias] : in.logit_bias()) {
    RETURN_IF_ERROR(CheckRange("logit_bias", bias, -100, 100));
    out.logit_bias.emplace(id, bias);
  }
  if (in.has_top_logprobs()) {
    if (in.top_logprobs() > kMaxTopLogprobs)
      return Bad("top_logprobs: ", in.top_logprobs(), " exceeds ", kMaxTopLogprobs);
    out.top_logprobs = in.top_logprobs();
  }
  return out;
}

absl::StatusOr<StopRules> ToStopRules(const v1::StopRules& in) {
  if (in.max_tokens() < 1) return Bad("max_tokens: 0, must be at least 1");
  RETURN_IF_ERROR(CheckCount("stop_token_ids", in.stop_token_ids_size(), 0, kMaxStopTokenIds));
  return StopRules{.max_tokens = in.max_tokens(),
                   .stop_token_ids = {in.stop_token_ids().begin(), in.stop_token_ids().end()},
                   .ignore_eos = in.ignore_eos()};
}

}  // namespace

Duration ToDuration(double seconds) { return Duration::FromSeconds(SecondsOfPeer(seconds)); }

absl::StatusOr<SequenceKey> ToSequenceKey(const v1::SequenceKey& key) {
  if (key.request_id().empty() || key.request_id().size() > kMaxRequestIdBytes) {
    return Bad("request_id: ", key.request_id().size(), " bytes, must be 1 to ",
               kMaxRequestIdBytes);
  }
  if (key.choice() >= kMaxChoices)
    return Bad("choice: ", key.choice(), ", must be below ", kMaxChoices);
  return SequenceKey{
      .request = RequestId(key.request_id()), .choice = key.choice(), .attempt = key.attempt()};
}

absl::StatusOr<step::DecodeRequest> ToDecodeRequest(const v1::DecodeCommand& command) {
  step::DecodeRequest out;
  RETURN_IF_ERROR(CheckName("reservation", command.reservation()));
  RETURN_IF_ERROR(CheckName("gateway_id", command.gateway_id()));
  RETURN_IF_ERROR(CheckCount("choices", command.choices_size(), 1, kMaxChoices));
  RETURN_IF_ERROR(CheckCount("prompt_ids", command.prompt_ids_size(), 1, kMaxIds));
  v1::SequenceKey key;
  key.set_request_id(command.request_id());
  for (const v1::DecodeChoice& choice : command.choices()) {
    key.set_choice(choice.choice());
    RETURN_IF_ERROR(ToSequenceKey(key).status());
    RETURN_IF_ERROR(CheckCount("emitted_ids", choice.emitted_ids_size(), 0, kMaxIds));
    if (command.choices_size() > 1 && choice.emitted_ids_size() > 0) {
      return Bad("choices: ", command.choices_size(), ", but choice ", choice.choice(),
                 " has emitted ", choice.emitted_ids_size(), " ids");
    }
    for (const ChoiceStart& other : out.choices) {
      if (other.choice == choice.choice())
        return Bad("choices: choice ", choice.choice(), " stands there twice");
    }
    out.choices.push_back(
        {.choice = choice.choice(),
         .attempt = choice.attempt(),
         .seed = choice.seed(),
         .emitted_ids = {choice.emitted_ids().begin(), choice.emitted_ids().end()}});
  }
  out.reservation = ReservationId(command.reservation());
  out.gateway = GatewayId(command.gateway_id());
  out.request = RequestId(command.request_id());
  out.prompt_ids = {command.prompt_ids().begin(), command.prompt_ids().end()};
  ASSIGN_OR_RETURN(out.sampling, ToSampling(command.sampling()));
  ASSIGN_OR_RETURN(out.stop, ToStopRules(command.stop()));
  out.local_prefill = command.local_prefill();
  const Duration lease = ToDuration(command.reservation_lease_seconds());
  if (!out.local_prefill && lease > Duration()) out.lease = lease;
  return out;
}

absl::StatusOr<PrefillOrder> ToPrefillOrder(const v1::PrefillCommand& command) {
  PrefillOrder out;
  RETURN_IF_ERROR(CheckName("reservation", command.reservation()));
  RETURN_IF_ERROR(CheckName("attention_worker", command.attention_worker()));
  RETURN_IF_ERROR(CheckName("attention_address", command.attention_address()));
  RETURN_IF_ERROR(CheckCount("ids", command.ids_size(), 2, kMaxIds));
  ASSIGN_OR_RETURN(out.job.sequence, ToSequenceKey(command.sequence()));
  out.job.reservation = ReservationId(command.reservation());
  out.job.ids = {command.ids().begin(), command.ids().end()};
  out.attention_worker = WorkerId(command.attention_worker());
  out.attention_address = command.attention_address();
  return out;
}

absl::StatusOr<ReleaseOrder> ToReleaseOrder(const v1::ReleaseCommand& command) {
  ReleaseOrder out;
  if (command.reservation().size() > kMaxNameBytes)
    RETURN_IF_ERROR(CheckName("reservation", command.reservation()));
  RETURN_IF_ERROR(CheckCount("sequences", command.sequences_size(), 0, kMaxReleasedSequences));
  out.reservation = ReservationId(command.reservation());
  for (const v1::SequenceKey& key : command.sequences()) {
    ASSIGN_OR_RETURN(SequenceKey sequence, ToSequenceKey(key));
    out.sequences.push_back(std::move(sequence));
  }
  if (command.reason() != v1::END_REASON_UNSPECIFIED) {
    ASSIGN_OR_RETURN(out.reason, ToEndReason(command.reason()));
  }
  return out;
}

absl::StatusOr<std::vector<FfnEndpoint>> ToHolders(const v1::SetGroupCommand& command) {
  std::vector<FfnEndpoint> out;
  RETURN_IF_ERROR(CheckCount("holders", command.holders_size(), 0, kMaxHolders));
  for (const v1::FfnHolder& holder : command.holders()) {
    RETURN_IF_ERROR(CheckName("holder's worker_id", holder.worker_id()));
    RETURN_IF_ERROR(CheckName("holder's address", holder.address()));
    out.push_back({.worker = WorkerId(holder.worker_id()),
                   .address = holder.address(),
                   .shard_epoch = holder.shard_epoch(),
                   .shard = {}});
    if (!holder.has_shard()) continue;
    out.back().shard = ToShard(holder.shard());
    RETURN_IF_ERROR(CheckShard(out.back().shard, kMaxLayers));
  }
  return out;
}

void ToProto(const SequenceKey& key, v1::SequenceKey* out) {
  out->set_request_id(key.request.value());
  out->set_choice(key.choice);
  out->set_attempt(key.attempt);
}

static void ToProto(const LoadedModel& loaded, v1::LoadedModel* out) {
  out->set_heads(loaded.heads);
  out->set_ffn(loaded.ffn);
  out->set_tied_embeddings(loaded.tied_embeddings);
  out->set_attention_bytes(loaded.attention_bytes);
  out->set_ffn_bytes(loaded.ffn_bytes);
  out->set_head_bytes(loaded.head_bytes);
  out->set_kv_row_bytes(loaded.kv_row_bytes);
}

void ToProto(const WorkerDescription& worker, v1::Registration* out) {
  out->set_worker_id(worker.id.value());
  out->set_incarnation(worker.incarnation);
  out->set_protocol_version(kProtocolVersion);
  out->set_pool(worker.pool);
  out->set_model(worker.model);
  for (Stage stage : worker.stages) out->add_stages(ToProto(stage));
  out->set_memory_class(worker.memory_class == MemoryClass::kSram ? v1::MEMORY_CLASS_SRAM
                                                                  : v1::MEMORY_CLASS_HBM);
  out->mutable_numerics()->set_prefill(worker.numerics.prefill);
  out->mutable_numerics()->set_attention(worker.numerics.attention);
  out->mutable_numerics()->set_ffn(worker.numerics.ffn);
  out->set_address(worker.address);
  out->set_metrics_url(worker.metrics_url);
  v1::WorkerCapacity& capacity = *out->mutable_capacity();
  capacity.set_kv_blocks(worker.capacity.kv_blocks);
  capacity.set_block_tokens(worker.capacity.block_tokens);
  capacity.set_max_sequences(worker.capacity.max_sequences);
  capacity.set_prefill_slots(worker.capacity.prefill_slots);
  capacity.set_max_handoff_rows(worker.capacity.max_handoff_rows);
  out->set_shard_epoch(worker.shard_epoch);
  for (const SequenceKey& key : worker.live) ToProto(key, out->add_live());
  out->set_pid(worker.pid);
  v1::ModelDimensions& dimensions = *out->mutable_dimensions();
  dimensions.set_layers(worker.dimensions.layers);
  dimensions.set_hidden(worker.dimensions.hidden);
  dimensions.set_kv_heads(worker.dimensions.kv_heads);
  dimensions.set_head_dim(worker.dimensions.head_dim);
  dimensions.set_vocabulary(worker.dimensions.vocabulary);
  dimensions.set_context_tokens(worker.dimensions.context_tokens);
  out->set_weights_bytes(worker.weights_bytes);
  if (worker.Runs(Stage::kFfn)) ToProto(worker.shard, out->mutable_shard());
  out->set_device(worker.device);
  out->set_time_scale(worker.time_scale);
  out->set_model_shape(worker.model_shape);
  out->set_weights(worker.weights);
  if (worker.loaded.heads > 0) ToProto(worker.loaded, out->mutable_loaded());
  ToProto(worker.dollars_per_hour, out->mutable_dollars_per_hour());
  ToProto(worker.watts, out->mutable_watts());
}

void ToProto(const WorkerReport& report, v1::Heartbeat* out) {
  out->set_kv_blocks_free(report.load.kv_blocks_free);
  out->set_sequences(report.load.sequences);
  out->set_prefills(report.load.prefills);
  out->set_tokens_total(report.load.tokens_total);
  out->set_prompts_total(report.load.prompts_total);
  out->set_prompt_tokens_total(report.load.prompt_tokens_total);
  out->set_draining(report.load.draining);
  out->set_elapsed_seconds(report.ledger.elapsed.seconds());
  for (const ledger::LedgerCell& cell : report.ledger.cells) ToProto(cell, out->add_ledger());
}

absl::StatusOr<KvRows> ToKvRows(v1::KvFrame& frame) {
  RETURN_IF_ERROR(CheckName("reservation", frame.reservation()));
  if (frame.layer() >= kMaxLayers)
    return Bad("layer: ", frame.layer(), ", must be below ", kMaxLayers);
  if (frame.count() > kMaxKvCount)
    return Bad("count: ", frame.count(), " positions exceed ", kMaxKvCount);
  if (frame.count() == 0 && !frame.cancel()) return Bad("count: 0 without cancel");
  if ((frame.count() == 0) != frame.rows().empty()) {
    return Bad("rows: ", frame.rows().size(), " bytes for ", frame.count(), " positions");
  }
  if (uint64_t{frame.first_position()} + frame.count() > kMaxIds) {
    return Bad("first_position: ", frame.first_position(), " plus ", frame.count(), " exceeds ",
               kMaxIds);
  }
  if (frame.prefill_time().worker_id().size() > kMaxNameBytes) {
    return Bad("prefill_time: a worker id of ", frame.prefill_time().worker_id().size(), " bytes");
  }
  KvRows out;
  out.reservation = ReservationId(frame.reservation());
  out.attempt = frame.attempt();
  out.layer = frame.layer();
  out.first_position = frame.first_position();
  out.count = frame.count();
  out.cancel = frame.cancel();
  out.arrives_at = Instant::FromNanoseconds(frame.arrives_at_nanoseconds());
  out.rows.assign(frame.rows().begin(), frame.rows().end());
  if (frame.has_prefill_time()) {
    out.prefill_seconds = ToDuration(frame.prefill_time().seconds()).seconds();
    out.prefill_calls = frame.prefill_time().calls();
    out.prefill_worker = frame.prefill_time().worker_id();
  }
  return out;
}

void ToProto(KvRows rows, v1::KvFrame* out) {
  out->set_reservation(rows.reservation.value());
  out->set_attempt(rows.attempt);
  out->set_layer(rows.layer);
  out->set_first_position(rows.first_position);
  out->set_count(rows.count);
  out->set_rows(rows.rows.data(), rows.rows.size());
  out->set_cancel(rows.cancel);
  out->set_arrives_at_nanoseconds(rows.arrives_at.nanoseconds());
  if (rows.prefill_worker.empty()) return;
  out->mutable_prefill_time()->set_stage(v1::STAGE_PREFILL);
  out->mutable_prefill_time()->set_worker_id(rows.prefill_worker);
  out->mutable_prefill_time()->set_seconds(rows.prefill_seconds);
  out->mutable_prefill_time()->set_calls(rows.prefill_calls);
}

absl::StatusOr<KvAckInfo> ToKvAck(const v1::KvAck& ack) {
  RETURN_IF_ERROR(CheckName("reservation", ack.reservation()));
  KvAckInfo out;
  out.reservation = ReservationId(ack.reservation());
  out.attempt = ack.attempt();
  out.layer = ack.layer();
  out.positions = ack.positions();
  if (ack.has_error()) out.status = FromProto(ack.error());
  out.arrives_at = Instant::FromNanoseconds(ack.arrives_at_nanoseconds());
  return out;
}

void ToProto(const KvAckInfo& ack, v1::KvAck* out) {
  out->set_reservation(ack.reservation.value());
  out->set_attempt(ack.attempt);
  out->set_layer(ack.layer);
  out->set_positions(ack.positions);
  if (!ack.status.ok()) ToProto(ack.status, out->mutable_error());
  out->set_arrives_at_nanoseconds(ack.arrives_at.nanoseconds());
}

absl::StatusOr<GatewayHello> ToGatewayHello(const v1::TokenHello& hello) {
  if (hello.protocol_version() != kProtocolVersion) {
    return Bad("protocol_version: ", hello.protocol_version(), ", this worker speaks ",
               kProtocolVersion);
  }
  RETURN_IF_ERROR(CheckName("gateway_id", hello.gateway_id()));
  RETURN_IF_ERROR(CheckCount("resume", hello.resume_size(), 0, kMaxResumePoints));
  GatewayHello out{.gateway = GatewayId(hello.gateway_id()), .resume = {}};
  for (const v1::ResumePoint& point : hello.resume()) {
    ASSIGN_OR_RETURN(SequenceKey sequence, ToSequenceKey(point.sequence()));
    out.resume.push_back({.sequence = std::move(sequence), .received = point.received()});
  }
  return out;
}

namespace {

void WriteEnd(const SequenceEnd& end, const SequenceCost& cost, v1::SequenceEnd* out) {
  out->set_reason(ToProto(end.reason));
  if (!end.status.ok()) ToProto(end.status, out->mutable_status());
  for (const StageTime& time : cost.times) {
    v1::StageTime& entry = *out->add_times();
    entry.set_stage(ToProto(time.stage));
    entry.set_worker_id(time.worker);
    entry.set_seconds(time.seconds);
    entry.set_calls(time.calls);
  }
  out->set_kv_transfer_seconds(cost.kv_transfer_seconds);
}

void WriteLogprobs(const step::SampledToken& token, v1::TokenLogprobs* out) {
  out->set_logprob(token.logprob);
  for (const auto& [id, logprob] : token.top) {
    out->add_top_ids(id);
    out->add_top_logprobs(logprob);
  }
}

}  // namespace

void ToProto(const step::OutboxMessage& message, const std::vector<SequenceCost>& costs,
             v1::TokenStep* out) {
  TANDEM_CHECK(costs.size() == message.emits.size());
  out->set_step(message.step);
  for (size_t i = 0; i < message.emits.size(); ++i) {
    const step::Emit& emit = message.emits[i];
    v1::SequenceTokens& entry = *out->add_sequences();
    ToProto(emit.sequence, entry.mutable_sequence());
    entry.set_position(emit.position);
    if (emit.token) {
      entry.add_ids(emit.token->id);
      entry.add_decode_steps(emit.token->decode_step);
      if (emit.token->logprob != 0 || !emit.token->top.empty())
        WriteLogprobs(*emit.token, entry.add_logprobs());
    }
    if (emit.end) WriteEnd(*emit.end, costs[i], entry.mutable_end());
  }
}

}  // namespace tandem
