// Gateways' messages, and answers to them.

#include <absl/strings/str_cat.h>

#include <set>

#include "scheduler/base/status.h"
#include "services/router/dispatch/convert.h"
#include "services/runtime/status_map.h"

namespace tandem::router {
namespace {

absl::Status CheckId(absl::string_view field, const std::string& id) {
  if (id.empty()) return absl::InvalidArgumentError(absl::StrCat(field, " is empty"));
  if (id.size() <= kMaxIdBytes) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " has ", id.size(), " bytes; at most ", kMaxIdBytes, " are taken"));
}

absl::Status CheckCount(absl::string_view field, uint64_t count, uint64_t max,
                        absl::string_view limit) {
  if (count <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(field, " has ", count, " entries; ", limit, " is ", max));
}

absl::Status CheckChoices(const v1::GenerateRequest& proto) {
  if (proto.choices().empty()) return absl::InvalidArgumentError("choices is empty");
  RETURN_IF_ERROR(CheckCount("choices", proto.choices_size(), kMaxChoices, "max_choices"));
  std::set<uint32_t> seen;
  for (const v1::ChoiceStart& choice : proto.choices()) {
    if (choice.choice() >= kMaxChoices) {
      return absl::InvalidArgumentError(
          absl::StrCat("choices holds choice ", choice.choice(), "; max_choices is ", kMaxChoices));
    }
    if (!seen.insert(choice.choice()).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("choice ", choice.choice(), " stands in choices twice"));
    }
    if (!choice.emitted_ids().empty() && proto.choices_size() > 1) {
      return absl::InvalidArgumentError(absl::StrCat(
          "choice ", choice.choice(), " has emitted ", choice.emitted_ids_size(),
          " tokens and comes with ", proto.choices_size() - 1, " others; it must come alone"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<GatewayId> ToGateway(const v1::GatewayHello& proto) {
  RETURN_IF_ERROR(CheckId("hello.gateway_id", proto.gateway_id()));
  if (proto.protocol_version() != kProtocolVersion) {
    return absl::InvalidArgumentError(
        absl::StrCat("gateway ", proto.gateway_id(), " speaks protocol version ",
                     proto.protocol_version(), ", this router ", kProtocolVersion));
  }
  return GatewayId(proto.gateway_id());
}

absl::Status CheckGenerate(const v1::GenerateRequest& proto, const GenerateLimits& limits) {
  RETURN_IF_ERROR(CheckId("request_id", proto.request_id()));
  RETURN_IF_ERROR(CheckChoices(proto));
  if (proto.prompt_ids().empty()) return absl::InvalidArgumentError("prompt_ids is empty");
  const uint64_t emitted = proto.choices(0).emitted_ids_size();
  RETURN_IF_ERROR(CheckCount("prompt_ids with emitted_ids", proto.prompt_ids_size() + emitted,
                             limits.max_prompt_tokens, "max_prompt_tokens"));
  if (proto.stop().max_tokens() == 0) return absl::InvalidArgumentError("stop.max_tokens is 0");
  if (emitted >= proto.stop().max_tokens()) {
    return absl::InvalidArgumentError(
        absl::StrCat("emitted_ids has ", emitted, " entries; stop.max_tokens ",
                     proto.stop().max_tokens(), " leaves none to generate"));
  }
  RETURN_IF_ERROR(CheckCount("stop.stop_token_ids", proto.stop().stop_token_ids_size(),
                             kMaxStopTokenIds, "max_stop_token_ids"));
  RETURN_IF_ERROR(CheckCount("sampling.logit_bias", proto.sampling().logit_bias_size(),
                             kMaxLogitBias, "max_logit_bias"));
  if (proto.sampling().top_logprobs() > kMaxTopLogprobs) {
    return absl::InvalidArgumentError(absl::StrCat("sampling.top_logprobs is ",
                                                   proto.sampling().top_logprobs(),
                                                   "; max_top_logprobs is ", kMaxTopLogprobs));
  }
  return absl::OkStatus();
}

static Sampling ToSampling(const v1::Sampling& proto) {
  Sampling out;
  if (proto.has_temperature()) out.temperature = proto.temperature();
  out.top_k = proto.top_k();
  if (proto.has_top_p()) out.top_p = proto.top_p();
  out.min_p = proto.min_p();
  if (proto.has_repetition_penalty()) out.repetition_penalty = proto.repetition_penalty();
  out.presence_penalty = proto.presence_penalty();
  out.frequency_penalty = proto.frequency_penalty();
  out.logit_bias.insert(proto.logit_bias().begin(), proto.logit_bias().end());
  if (proto.has_top_logprobs()) out.top_logprobs = proto.top_logprobs();
  return out;
}

GenerateSpec ToSpec(const v1::GenerateRequest& proto) {
  GenerateSpec spec;
  spec.request = RequestId(proto.request_id());
  spec.prompt_ids.assign(proto.prompt_ids().begin(), proto.prompt_ids().end());
  spec.sampling = ToSampling(proto.sampling());
  spec.stop.max_tokens = proto.stop().max_tokens();
  spec.stop.stop_token_ids.assign(proto.stop().stop_token_ids().begin(),
                                  proto.stop().stop_token_ids().end());
  spec.stop.ignore_eos = proto.stop().ignore_eos();
  for (const v1::ChoiceStart& choice : proto.choices()) {
    spec.choices.push_back({choice.choice(),
                            choice.attempt(),
                            choice.seed(),
                            {choice.emitted_ids().begin(), choice.emitted_ids().end()}});
  }
  spec.resume = proto.resume();
  return spec;
}

absl::Status CheckAbort(const v1::AbortRequest& proto) {
  RETURN_IF_ERROR(CheckId("abort.request_id", proto.request_id()));
  return CheckCount("abort.choices", proto.choices_size(), kMaxChoices, "max_choices");
}

v1::RouterMessage ToWelcome(const RouterIdentity& self) {
  v1::RouterMessage out;
  out.mutable_welcome()->set_router_id(self.router_id);
  out.mutable_welcome()->set_protocol_version(kProtocolVersion);
  out.mutable_welcome()->set_gateway_lease_seconds(self.gateway_lease.seconds());
  return out;
}

v1::RouterMessage ToProto(const control::TellPlaced& placed) {
  v1::RouterMessage out;
  ToProto(placed.sequence, out.mutable_placed()->mutable_sequence());
  out.mutable_placed()->set_topology(placed.topology);
  out.mutable_placed()->set_prefill_worker(placed.prefill_worker.value());
  out.mutable_placed()->mutable_attention()->set_worker_id(placed.attention_worker.value());
  out.mutable_placed()->mutable_attention()->set_address(placed.attention_address);
  return out;
}

v1::RouterMessage ToProto(const control::TellEnd& end) {
  v1::RouterMessage out;
  ToProto(end.sequence, out.mutable_end()->mutable_sequence());
  out.mutable_end()->set_reason(ToProto(end.end.reason));
  if (!end.end.status.ok()) tandem::ToProto(end.end.status, out.mutable_end()->mutable_status());
  out.mutable_end()->set_retry_after_seconds(end.retry_after.seconds());
  return out;
}

v1::RouterMessage ToProto(const ClusterLoad& load) {
  v1::RouterMessage out;
  out.mutable_load()->set_queued_requests(load.queued_requests);
  out.mutable_load()->set_running_sequences(load.running_sequences);
  out.mutable_load()->set_kv_blocks(load.kv_blocks);
  out.mutable_load()->set_kv_blocks_free(load.kv_blocks_free);
  out.mutable_load()->set_block_tokens(load.block_tokens);
  return out;
}

v1::RouterMessage ToProto(const control::TellClusterState& state) {
  v1::RouterMessage out;
  out.mutable_state()->set_ready(state.ready);
  out.mutable_state()->set_reason(state.reason);
  out.mutable_state()->set_context_tokens(state.context_tokens);
  out.mutable_state()->set_time_scale(state.time_scale);
  for (const auto& [worker, address] : state.attention_workers) {
    v1::WorkerAddress& to = *out.mutable_state()->add_attention_workers();
    to.set_worker_id(worker.value());
    to.set_address(address);
  }
  return out;
}

}  // namespace tandem::router
