#include "services/router/dispatch/convert.h"

#include <gtest/gtest.h>

#include "services/runtime/proto_words.h"

namespace tandem::router {
namespace {

v1::Registration GoodRegistration() {
  v1::Registration proto;
  proto.set_worker_id("w-1");
  proto.set_incarnation(3);
  proto.set_protocol_version(1);
  proto.set_pool("attention");
  proto.set_model("m");
  proto.add_stages(v1::STAGE_ATTENTION);
  proto.set_memory_class(v1::MEMORY_CLASS_SRAM);
  proto.set_address("h:1");
  return proto;
}

v1::GenerateRequest GoodRequest() {
  v1::GenerateRequest proto;
  proto.set_request_id("r-1");
  proto.add_prompt_ids(5);
  proto.mutable_stop()->set_max_tokens(2);
  proto.add_choices()->set_seed(9);
  return proto;
}

std::string ErrorOf(const v1::Registration& proto) {
  return std::string(ToWorker(proto).status().message());
}
std::string ErrorOf(const v1::GenerateRequest& proto) {
  return std::string(CheckGenerate(proto, {.max_prompt_tokens = 10}).message());
}

TEST(ConvertWorker, EveryFieldOfARegistrationArrives) {
  v1::Registration proto = GoodRegistration();
  proto.add_stages(v1::STAGE_PREFILL);
  proto.mutable_numerics()->set_attention("a");
  proto.set_metrics_url("http://h:2/metrics");
  v1::WorkerCapacity& capacity = *proto.mutable_capacity();
  capacity.set_kv_blocks(1);
  capacity.set_block_tokens(2);
  capacity.set_max_sequences(3);
  capacity.set_prefill_slots(4);
  capacity.set_max_handoff_rows(5);
  v1::ModelDimensions& model = *proto.mutable_dimensions();
  model.set_layers(6);
  model.set_hidden(7);
  model.set_kv_heads(8);
  model.set_head_dim(9);
  model.set_vocabulary(10);
  model.set_context_tokens(11);
  proto.set_shard_epoch(12);
  proto.mutable_shard()->set_first_layer(1);
  proto.mutable_shard()->set_last_layer(4);
  proto.mutable_shard()->set_column(2);
  proto.mutable_shard()->set_columns(3);
  proto.set_weights_bytes(13);
  proto.set_pid(14);
  proto.add_live()->set_request_id("r");
  const absl::StatusOr<WorkerDescription> worker = ToWorker(proto);
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_EQ(worker->id, WorkerId("w-1"));
  EXPECT_EQ(worker->incarnation, 3u);
  EXPECT_EQ(worker->stages, (std::set<Stage>{Stage::kPrefill, Stage::kAttention}));
  EXPECT_EQ(worker->memory_class, MemoryClass::kSram);
  EXPECT_EQ(worker->numerics, (NumericsClass{"", "a", ""}));
  EXPECT_EQ(worker->capacity.kv_blocks, 1u);
  EXPECT_EQ(worker->capacity.block_tokens, 2u);
  EXPECT_EQ(worker->capacity.max_sequences, 3u);
  EXPECT_EQ(worker->capacity.prefill_slots, 4u);
  EXPECT_EQ(worker->capacity.max_handoff_rows, 5u);
  EXPECT_EQ(worker->dimensions, (ModelDimensions{6, 7, 8, 9, 10, 11}));
  EXPECT_EQ(worker->shard_epoch, 12u);
  EXPECT_EQ(worker->shard, (FfnShard{1, 4, 2, 3}));
  proto.clear_shard();
  EXPECT_EQ(ToWorker(proto)->shard, FfnShard());
  EXPECT_EQ(worker->weights_bytes, 13u);
  EXPECT_EQ(worker->pid, 14);
  ASSERT_EQ(worker->live.size(), 1u);
  EXPECT_EQ(worker->live[0].request, RequestId("r"));
}

TEST(ConvertWorker, MalformedRegistrationsNameTheFieldAndTheNumber) {
  v1::Registration proto = GoodRegistration();
  proto.add_stages(v1::STAGE_ATTENTION);
  EXPECT_EQ(ErrorOf(proto), "registration.stages holds stage 2 twice");
  proto = GoodRegistration();
  proto.clear_stages();
  EXPECT_EQ(ErrorOf(proto), "registration.stages is empty");
  proto = GoodRegistration();
  proto.clear_memory_class();
  EXPECT_EQ(ErrorOf(proto), "registration.memory_class is 0: unknown");
  proto = GoodRegistration();
  proto.set_address(std::string(257, 'x'));
  EXPECT_EQ(ErrorOf(proto), "registration.address has 257 bytes; at most 256 are taken");
  proto = GoodRegistration();
  proto.add_live();
  EXPECT_EQ(ErrorOf(proto), "registration.live.request_id is empty");
  proto.mutable_live(0)->set_request_id("r");
  proto.mutable_live(0)->set_choice(128);
  EXPECT_EQ(ErrorOf(proto), "registration.live.choice is 128; max_choices is 128");
  proto = GoodRegistration();
  proto.set_protocol_version(0);
  EXPECT_EQ(ErrorOf(proto), "worker w-1 speaks protocol version 0, this router 1");
}

TEST(ConvertWorker, SequenceEventsOfUnknownKindOrReasonAreErrors) {
  v1::SequenceEvent proto;
  proto.mutable_sequence()->set_request_id("r");
  EXPECT_FALSE(ToEvent(WorkerId("w"), proto).ok());
  proto.set_kind(v1::SequenceEvent::KIND_ENDED);
  EXPECT_EQ(ToEvent(WorkerId("w"), proto).status().message(), "end reason: 0 is unknown");
  proto.set_reason(v1::END_REASON_FAILED);  // without an error: kInternal, not OK
  const absl::StatusOr<control::Event> event = ToEvent(WorkerId("w"), proto);
  ASSERT_TRUE(event.ok());
  EXPECT_EQ(std::get<control::SequenceEnded>(*event).end.status.code(),
            absl::StatusCode::kInternal);
}

TEST(ConvertWorker, EveryEndReasonKeepsItsMeaning) {
  for (int i = 1; i <= 8; i++) {
    const auto reason = ToEndReason(static_cast<v1::EndReason>(i));
    ASSERT_TRUE(reason.ok()) << i;
    EXPECT_EQ(ToProto(*reason), i);
  }
  EXPECT_FALSE(ToEndReason(v1::END_REASON_UNSPECIFIED).ok());
  EXPECT_FALSE(ToEndReason(static_cast<v1::EndReason>(77)).ok());
}

TEST(ConvertGateway, UnsetSamplingTakesItsDefaultsAndSetZerosAreKept) {
  const GenerateSpec defaults = ToSpec(GoodRequest());
  EXPECT_EQ(defaults.sampling.temperature, 1.0f);
  EXPECT_EQ(defaults.sampling.top_p, 1.0f);
  EXPECT_EQ(defaults.sampling.repetition_penalty, 1.0f);
  EXPECT_FALSE(defaults.sampling.top_logprobs.has_value());
  v1::GenerateRequest proto = GoodRequest();
  proto.mutable_sampling()->set_temperature(0);
  proto.mutable_sampling()->set_top_logprobs(0);
  const GenerateSpec greedy = ToSpec(proto);
  EXPECT_EQ(greedy.sampling.temperature, 0.0f);
  EXPECT_EQ(greedy.sampling.top_logprobs, 0u);
}

TEST(ConvertGateway, SamplingAndStopReachTheWorkersCommandUnchanged) {
  v1::GenerateRequest proto = GoodRequest();
  v1::Sampling& sampling = *proto.mutable_sampling();
  sampling.set_temperature(0.25);
  sampling.set_top_k(40);
  sampling.set_top_p(0.5);
  sampling.set_min_p(0.125);
  sampling.set_repetition_penalty(1.5);
  sampling.set_presence_penalty(-1);
  sampling.set_frequency_penalty(2);
  (*sampling.mutable_logit_bias())[3] = 4;
  sampling.set_top_logprobs(5);
  proto.mutable_stop()->add_stop_token_ids(6);
  proto.mutable_stop()->set_ignore_eos(true);
  const GenerateSpec spec = ToSpec(proto);
  control::SendDecode command;
  command.sampling = spec.sampling;
  command.stop = spec.stop;
  const v1::DecodeCommand decode = ToProto(command).decode();
  EXPECT_EQ(decode.sampling().SerializeAsString(), sampling.SerializeAsString());
  EXPECT_EQ(decode.stop().SerializeAsString(), proto.stop().SerializeAsString());
  EXPECT_EQ(decode.reservation_lease_seconds(), 0);  // infinite
}

TEST(ConvertGateway, LimitsAreNamed) {
  EXPECT_EQ(ErrorOf(GoodRequest()), "");
  v1::GenerateRequest proto = GoodRequest();
  proto.mutable_choices(0)->mutable_emitted_ids()->Resize(10, 1);
  EXPECT_EQ(ErrorOf(proto), "prompt_ids with emitted_ids has 11 entries; max_prompt_tokens is 10");
  proto.mutable_choices(0)->mutable_emitted_ids()->Resize(2, 1);
  EXPECT_EQ(ErrorOf(proto), "emitted_ids has 2 entries; stop.max_tokens 2 leaves none to generate");
  proto = GoodRequest();
  proto.mutable_choices(0)->add_emitted_ids(1);
  proto.add_choices()->set_choice(1);
  EXPECT_EQ(ErrorOf(proto),
            "choice 0 has emitted 1 tokens and comes with 1 others; it must come alone");
  proto = GoodRequest();
  proto.mutable_stop()->mutable_stop_token_ids()->Resize(65, 1);
  EXPECT_EQ(ErrorOf(proto), "stop.stop_token_ids has 65 entries; max_stop_token_ids is 64");
  proto = GoodRequest();
  for (int i = 0; i < 1025; i++) (*proto.mutable_sampling()->mutable_logit_bias())[i] = 1;
  EXPECT_EQ(ErrorOf(proto), "sampling.logit_bias has 1025 entries; max_logit_bias is 1024");
  proto = GoodRequest();
  proto.mutable_sampling()->set_top_logprobs(21);
  EXPECT_EQ(ErrorOf(proto), "sampling.top_logprobs is 21; max_top_logprobs is 20");
  proto = GoodRequest();
  proto.clear_choices();
  EXPECT_EQ(ErrorOf(proto), "choices is empty");
  proto.add_choices()->set_choice(128);
  EXPECT_EQ(ErrorOf(proto), "choices holds choice 128; max_choices is 128");
}

TEST(ConvertGateway, EndCarriesItsStatusAndWhenToTryAgain) {
  const v1::RouterSequenceEnd end =
      ToProto(control::TellEnd{GatewayId("g"),
                               {RequestId("r"), 1, 2},
                               {EndReason::kFailed, absl::ResourceExhaustedError("full")},
                               Duration::Milliseconds(1500)})
          .end();
  EXPECT_EQ(end.sequence().choice(), 1u);
  EXPECT_EQ(end.sequence().attempt(), 2u);
  EXPECT_EQ(end.reason(), v1::END_REASON_FAILED);
  EXPECT_EQ(end.status().code(), 8);
  EXPECT_EQ(end.retry_after_seconds(), 1.5);
}

TEST(ConvertWorker, GroupsAndDrainsCarryTheRoutersEpoch) {
  RouterIdentity self;
  self.epoch = 77;
  control::SendSetGroup group;
  group.command = control::CommandId{5};
  group.group_version = 6;
  group.holders = {{WorkerId("f-1"), "h:1", 9, {0, 4, 1, 2}}};
  const v1::RouterCommand command = ToProto(self, group);
  EXPECT_EQ(command.command_id(), 5u);
  EXPECT_EQ(command.set_group().router_epoch(), 77u);
  EXPECT_EQ(command.set_group().group_version(), 6u);
  EXPECT_EQ(command.set_group().holders(0).shard_epoch(), 9u);
  EXPECT_EQ(ToShard(command.set_group().holders(0).shard()), (FfnShard{0, 4, 1, 2}));
  EXPECT_EQ(ToProto(self, control::SendDrain{}).drain().router_epoch(), 77u);
}

}  // namespace
}  // namespace tandem::router
