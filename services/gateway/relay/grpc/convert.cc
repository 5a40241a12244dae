#include "services/gateway/relay/grpc/convert.h"

#include <algorithm>
#include <utility>

#include "services/runtime/proto_words.h"
#include "services/runtime/status_map.h"

namespace tandem::gateway {
namespace {

SequenceEnd MakeEnd(v1::EndReason reason, bool has_status, const v1::ErrorStatus& status) {
  SequenceEnd end{ToEndReason(reason).value_or(EndReason::kFailed), absl::OkStatus()};
  if (end.reason != EndReason::kFailed) return end;
  end.status = has_status ? tandem::FromProto(status)
                          : absl::InternalError("the sequence failed without a reason");
  return end;
}

const char* StageName(v1::Stage stage) {
  const absl::StatusOr<Stage> known = ToStage(stage);
  return known.ok() ? ToString(*known) : "unknown";
}

void ToProto(const Sampling& sampling, v1::Sampling* out) {
  out->set_temperature(sampling.temperature);
  if (sampling.top_k > 0) out->set_top_k(sampling.top_k);
  out->set_top_p(sampling.top_p);
  out->set_min_p(sampling.min_p);
  out->set_repetition_penalty(sampling.repetition_penalty);
  out->set_presence_penalty(sampling.presence_penalty);
  out->set_frequency_penalty(sampling.frequency_penalty);
  for (const auto& [id, bias] : sampling.logit_bias) (*out->mutable_logit_bias())[id] = bias;
  if (sampling.top_logprobs.has_value()) out->set_top_logprobs(*sampling.top_logprobs);
}

NewToken TakeToken(const v1::SequenceTokens& tokens, int i) {
  NewToken token;
  token.id = tokens.ids(i);
  if (i < tokens.logprobs_size()) {
    const v1::TokenLogprobs& logprobs = tokens.logprobs(i);
    token.logprob.logprob = logprobs.logprob();
    for (int k = 0; k < std::min(logprobs.top_ids_size(), logprobs.top_logprobs_size()); ++k) {
      token.logprob.top.emplace_back(logprobs.top_ids(k), logprobs.top_logprobs(k));
    }
  }
  return token;
}

}  // namespace

void ToProto(const SequenceKey& key, v1::SequenceKey* out) {
  out->set_request_id(key.request.value());
  out->set_choice(key.choice);
  out->set_attempt(key.attempt);
}

SequenceKey FromProto(const v1::SequenceKey& key) {
  return {RequestId(key.request_id()), key.choice(), key.attempt()};
}

void ToProto(const tandem::GenerateSpec& spec, v1::GenerateRequest* out) {
  out->set_request_id(spec.request.value());
  out->mutable_prompt_ids()->Add(spec.prompt_ids.begin(), spec.prompt_ids.end());
  ToProto(spec.sampling, out->mutable_sampling());
  out->mutable_stop()->set_max_tokens(spec.stop.max_tokens);
  out->mutable_stop()->mutable_stop_token_ids()->Add(spec.stop.stop_token_ids.begin(),
                                                     spec.stop.stop_token_ids.end());
  out->mutable_stop()->set_ignore_eos(spec.stop.ignore_eos);
  for (const ChoiceStart& start : spec.choices) {
    v1::ChoiceStart* choice = out->add_choices();
    choice->set_choice(start.choice);
    choice->set_attempt(start.attempt);
    choice->set_seed(start.seed);
    choice->mutable_emitted_ids()->Add(start.emitted_ids.begin(), start.emitted_ids.end());
  }
  out->set_resume(spec.resume);
}

ClusterInfo FromProto(const v1::ClusterState& state) {
  ClusterInfo cluster{
      state.ready(), state.reason(), state.context_tokens(), {}, state.time_scale()};
  for (const v1::WorkerAddress& worker : state.attention_workers()) {
    cluster.attention_workers.push_back({WorkerId(worker.worker_id()), worker.address()});
  }
  return cluster;
}

ClusterLoad FromProto(const v1::ClusterLoad& load) {
  return {load.queued_requests(), load.running_sequences(), load.kv_blocks(),
          std::min<uint64_t>(load.kv_blocks_free(), load.kv_blocks()), load.block_tokens()};
}

PlacedInfo FromProto(const v1::Placed& placed) {
  return {FromProto(placed.sequence()),
          placed.topology(),
          placed.prefill_worker(),
          {WorkerId(placed.attention().worker_id()), placed.attention().address()}};
}

RefusedInfo FromProto(const v1::RouterSequenceEnd& end) {
  return {FromProto(end.sequence()), MakeEnd(end.reason(), end.has_status(), end.status()),
          SecondsOfPeer(end.retry_after_seconds())};
}

TokenBatch FromProto(v1::TokenStep& step) {
  TokenBatch batch;
  batch.step = step.step();
  for (const v1::SequenceTokens& tokens : step.sequences()) {
    SequenceTokens part;
    part.sequence = FromProto(tokens.sequence());
    part.position = tokens.position();
    for (int i = 0; i < tokens.ids_size(); ++i) part.tokens.push_back(TakeToken(tokens, i));
    if (tokens.has_end()) {
      SequenceResult result;
      result.end = MakeEnd(tokens.end().reason(), tokens.end().has_status(), tokens.end().status());
      for (const v1::StageTime& time : tokens.end().times()) {
        result.times.push_back({StageName(time.stage()), time.worker_id(),
                                SecondsOfPeer(time.seconds()), time.calls()});
      }
      result.kv_transfer_seconds = SecondsOfPeer(tokens.end().kv_transfer_seconds());
      part.result = std::move(result);
    }
    batch.sequences.push_back(std::move(part));
  }
  return batch;
}

}  // namespace tandem::gateway
