// Workers' messages, and commands to them.

#include <absl/strings/str_cat.h>

#include "scheduler/base/status.h"
#include "services/router/dispatch/convert.h"
#include "services/runtime/status_map.h"

namespace tandem::router {
namespace {

absl::Status CheckText(absl::string_view field, const std::string& text, size_t max_bytes,
                       bool required) {
  if (required && text.empty()) return absl::InvalidArgumentError(absl::StrCat(field, " is empty"));
  if (text.size() <= max_bytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " has ", text.size(), " bytes; at most ", max_bytes, " are taken"));
}

absl::Status CheckKey(absl::string_view field, const v1::SequenceKey& key) {
  RETURN_IF_ERROR(CheckText(absl::StrCat(field, ".request_id"), key.request_id(), kMaxIdBytes,
                            /*required=*/true));
  if (key.choice() < kMaxChoices) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, ".choice is ", key.choice(), "; max_choices is ", kMaxChoices));
}

absl::Status CheckRegistrationFields(const v1::Registration& proto) {
  RETURN_IF_ERROR(CheckText("registration.worker_id", proto.worker_id(), kMaxIdBytes, true));
  if (proto.protocol_version() != kProtocolVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("worker ", proto.worker_id(), " speaks protocol version ",
                     proto.protocol_version(), ", this router ", kProtocolVersion));
  }
  if (proto.incarnation() == 0) return absl::InvalidArgumentError("registration.incarnation is 0");
  RETURN_IF_ERROR(CheckText("registration.pool", proto.pool(), kMaxIdBytes, true));
  RETURN_IF_ERROR(CheckText("registration.model", proto.model(), kMaxNameBytes, true));
  RETURN_IF_ERROR(CheckText("registration.address", proto.address(), kMaxNameBytes, true));
  RETURN_IF_ERROR(CheckText("registration.device", proto.device(), kMaxNameBytes, false));
  RETURN_IF_ERROR(CheckText("registration.model_shape", proto.model_shape(), kMaxNameBytes, false));
  RETURN_IF_ERROR(CheckText("registration.weights", proto.weights(), kMaxNameBytes, false));
  if (!(proto.time_scale() >= 0 && proto.time_scale() <= kMaxTimeScale)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "registration.time_scale is ", proto.time_scale(), "; 0 to ", kMaxTimeScale, " is taken"));
  }
  RETURN_IF_ERROR(CheckText("registration.metrics_url", proto.metrics_url(), kMaxTextBytes, false));
  RETURN_IF_ERROR(
      CheckText("registration.numerics.prefill", proto.numerics().prefill(), kMaxTextBytes, false));
  RETURN_IF_ERROR(CheckText("registration.numerics.attention", proto.numerics().attention(),
                            kMaxTextBytes, false));
  RETURN_IF_ERROR(
      CheckText("registration.numerics.ffn", proto.numerics().ffn(), kMaxTextBytes, false));
  if (proto.live_size() > kMaxLiveSequences) {
    return absl::InvalidArgumentError(absl::StrCat("registration.live has ", proto.live_size(),
                                                   " sequences; at most ", kMaxLiveSequences,
                                                   " are taken"));
  }
  for (const v1::SequenceKey& key : proto.live())
    RETURN_IF_ERROR(CheckKey("registration.live", key));
  return absl::OkStatus();
}

absl::Status ReadStages(const v1::Registration& proto, WorkerDescription& worker) {
  for (const int stage : proto.stages()) {
    const absl::StatusOr<Stage> read = ToStage(stage);
    if (!read.ok()) {
      return absl::InvalidArgumentError(
          absl::StrCat("registration.stages holds ", read.status().message()));
    }
    if (!worker.stages.insert(*read).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("registration.stages holds stage ", stage, " twice"));
    }
  }
  if (worker.stages.empty()) return absl::InvalidArgumentError("registration.stages is empty");
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<WorkerDescription> ToWorker(const v1::Registration& proto) {
  RETURN_IF_ERROR(CheckRegistrationFields(proto));
  WorkerDescription worker;
  worker.id = WorkerId(proto.worker_id());
  worker.incarnation = proto.incarnation();
  worker.pool = proto.pool();
  worker.model = proto.model();
  RETURN_IF_ERROR(ReadStages(proto, worker));
  switch (proto.memory_class()) {
    case v1::MEMORY_CLASS_HBM:
      worker.memory_class = MemoryClass::kHbm;
      break;
    case v1::MEMORY_CLASS_SRAM:
      worker.memory_class = MemoryClass::kSram;
      break;
    default:
      return absl::InvalidArgumentError(absl::StrCat(
          "registration.memory_class is ", static_cast<int>(proto.memory_class()), ": unknown"));
  }
  worker.numerics = {proto.numerics().prefill(), proto.numerics().attention(),
                     proto.numerics().ffn()};
  worker.address = proto.address();
  worker.metrics_url = proto.metrics_url();
  const v1::WorkerCapacity& capacity = proto.capacity();
  worker.capacity = {capacity.kv_blocks(), capacity.block_tokens(), capacity.max_sequences(),
                     capacity.prefill_slots(), capacity.max_handoff_rows()};
  worker.shard_epoch = proto.shard_epoch();
  if (proto.has_shard()) worker.shard = ToShard(proto.shard());
  const v1::ModelDimensions& model = proto.dimensions();
  worker.dimensions = {model.layers(),   model.hidden(),     model.kv_heads(),
                       model.head_dim(), model.vocabulary(), model.context_tokens()};
  worker.weights_bytes = proto.weights_bytes();
  worker.device = proto.device();
  worker.time_scale = proto.time_scale();
  worker.model_shape = proto.model_shape();
  worker.weights = proto.weights();
  ASSIGN_OR_RETURN(worker.dollars_per_hour,
                   ToFigure("registration.dollars_per_hour", proto.dollars_per_hour()));
  ASSIGN_OR_RETURN(worker.watts, ToFigure("registration.watts", proto.watts()));
  worker.pid = proto.pid();
  for (const v1::SequenceKey& key : proto.live()) worker.live.push_back(ToKey(key));
  return worker;
}

WorkerLoad ToLoad(const v1::Heartbeat& proto) {
  return {proto.kv_blocks_free(),     proto.sequences(), proto.prefills(),
          proto.tokens_total(),       proto.draining(),  proto.prompts_total(),
          proto.prompt_tokens_total()};
}

absl::StatusOr<control::Event> ToEvent(const WorkerId& worker, const v1::SequenceEvent& proto) {
  RETURN_IF_ERROR(CheckKey("sequence", proto.sequence()));
  if (proto.kind() == v1::SequenceEvent::KIND_PREFILLED) {
    return control::SequencePrefilled{worker, ToKey(proto.sequence())};
  }
  if (proto.kind() != v1::SequenceEvent::KIND_ENDED) {
    return absl::InvalidArgumentError(
        absl::StrCat("sequence event of unknown kind ", static_cast<int>(proto.kind())));
  }
  control::SequenceEnded ended{worker, ToKey(proto.sequence()), {}};
  ASSIGN_OR_RETURN(ended.end.reason, ToEndReason(proto.reason()));
  if (ended.end.reason == EndReason::kFailed) ended.end.status = FromProto(proto.error());
  return ended;
}

v1::RouterCommand ToProto(const RouterIdentity& self, const control::AnswerRegistration& answer) {
  v1::RouterCommand out;
  v1::RegistrationReply& reply = *out.mutable_registered();
  if (!answer.status.ok()) tandem::ToProto(answer.status, reply.mutable_error());
  reply.set_router_id(self.router_id);
  reply.set_router_epoch(self.epoch);
  reply.set_heartbeat_interval_seconds(self.heartbeat_interval.seconds());
  reply.set_lease_seconds(self.worker_lease.seconds());
  reply.set_gateway_lease_seconds(self.gateway_lease.seconds());
  return out;
}

static void ToProto(const Sampling& sampling, v1::Sampling* out) {
  out->set_temperature(sampling.temperature);
  out->set_top_k(sampling.top_k);
  out->set_top_p(sampling.top_p);
  out->set_min_p(sampling.min_p);
  out->set_repetition_penalty(sampling.repetition_penalty);
  out->set_presence_penalty(sampling.presence_penalty);
  out->set_frequency_penalty(sampling.frequency_penalty);
  for (const auto& [token, bias] : sampling.logit_bias) (*out->mutable_logit_bias())[token] = bias;
  if (sampling.top_logprobs.has_value()) out->set_top_logprobs(*sampling.top_logprobs);
}

v1::RouterCommand ToProto(const control::SendDecode& command) {
  v1::RouterCommand out;
  out.set_command_id(static_cast<uint64_t>(command.command));
  v1::DecodeCommand& decode = *out.mutable_decode();
  decode.set_reservation(command.reservation.value());
  decode.set_gateway_id(command.gateway.value());
  decode.set_request_id(command.request.value());
  for (const ChoiceStart& choice : command.choices) {
    v1::DecodeChoice& start = *decode.add_choices();
    start.set_choice(choice.choice);
    start.set_attempt(choice.attempt);
    start.set_seed(choice.seed);
    start.mutable_emitted_ids()->Add(choice.emitted_ids.begin(), choice.emitted_ids.end());
  }
  decode.mutable_prompt_ids()->Add(command.prompt_ids.begin(), command.prompt_ids.end());
  ToProto(command.sampling, decode.mutable_sampling());
  decode.mutable_stop()->set_max_tokens(command.stop.max_tokens);
  decode.mutable_stop()->mutable_stop_token_ids()->Add(command.stop.stop_token_ids.begin(),
                                                       command.stop.stop_token_ids.end());
  decode.mutable_stop()->set_ignore_eos(command.stop.ignore_eos);
  decode.set_local_prefill(command.local_prefill);
  const bool leased = command.reservation_lease != Duration::Infinite();
  decode.set_reservation_lease_seconds(leased ? command.reservation_lease.seconds() : 0);
  return out;
}

v1::RouterCommand ToProto(const control::SendPrefill& command) {
  v1::RouterCommand out;
  out.set_command_id(static_cast<uint64_t>(command.command));
  v1::PrefillCommand& prefill = *out.mutable_prefill();
  prefill.set_reservation(command.reservation.value());
  ToProto(command.sequence, prefill.mutable_sequence());
  prefill.mutable_ids()->Add(command.ids.begin(), command.ids.end());
  prefill.set_attention_worker(command.attention_worker.value());
  prefill.set_attention_address(command.attention_address);
  return out;
}

v1::RouterCommand ToProto(const control::SendRelease& command) {
  v1::RouterCommand out;
  out.set_command_id(static_cast<uint64_t>(command.command));
  v1::ReleaseCommand& release = *out.mutable_release();
  release.set_reservation(command.reservation.value());
  for (const SequenceKey& key : command.sequences) ToProto(key, release.add_sequences());
  release.set_reason(ToProto(command.reason));
  return out;
}

v1::RouterCommand ToProto(const RouterIdentity& self, const control::SendSetGroup& command) {
  v1::RouterCommand out;
  out.set_command_id(static_cast<uint64_t>(command.command));
  v1::SetGroupCommand& group = *out.mutable_set_group();
  group.set_router_epoch(self.epoch);
  group.set_group_version(command.group_version);
  for (const control::FfnHolder& holder : command.holders) {
    v1::FfnHolder& to = *group.add_holders();
    to.set_worker_id(holder.worker.value());
    to.set_address(holder.address);
    to.set_shard_epoch(holder.shard_epoch);
    tandem::ToProto(holder.shard, to.mutable_shard());
  }
  return out;
}

v1::RouterCommand ToProto(const RouterIdentity& self, const control::SendDrain& command) {
  v1::RouterCommand out;
  out.set_command_id(static_cast<uint64_t>(command.command));
  out.mutable_drain()->set_router_epoch(self.epoch);
  return out;
}

}  // namespace tandem::router
