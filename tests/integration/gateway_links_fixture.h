#pragma once

// A relay and its gRPC streams between a router and two attention workers that the test leads, and
// one client.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "services/gateway/relay/grpc/links.h"
#include "services/runtime/real_time.h"
#include "tandem/v1/router.grpc.pb.h"
#include "tandem/v1/step_tokens.grpc.pb.h"
#include "tests/fakes/stream_door.h"

namespace tandem::gateway {

class RouterDoor final : public v1::Router::CallbackService,
                         public test::StreamDoor<v1::GatewayMessage, v1::RouterMessage> {
 public:
  grpc::ServerBidiReactor<v1::GatewayMessage, v1::RouterMessage>* Generate(
      grpc::CallbackServerContext*) override {
    return Open();
  }
  v1::GenerateRequest AwaitGenerate(size_t stream, size_t count = 1) {
    return Await(
               stream, "Generate",
               [](const v1::GatewayMessage& message) { return message.has_generate(); }, count)
        .generate();
  }
  v1::AbortRequest AwaitAbort(size_t stream) {
    return Await(stream, "Abort", [](const v1::GatewayMessage& m) { return m.has_abort(); })
        .abort();
  }
  void Welcome(size_t stream, double lease_seconds) {
    v1::RouterMessage message;
    message.mutable_welcome()->set_router_id("router-1");
    message.mutable_welcome()->set_gateway_lease_seconds(lease_seconds);
    Send(stream, message);
  }
};

class TokensDoor final : public v1::Tokens::CallbackService,
                         public test::StreamDoor<v1::TokenControl, v1::TokenStep> {
 public:
  grpc::ServerBidiReactor<v1::TokenControl, v1::TokenStep>* StepTokens(
      grpc::CallbackServerContext*) override {
    return Open();
  }
  v1::TokenAck AwaitAck(size_t stream, size_t count = 1) {
    return Await(
               stream, "an acknowledgement",
               [](const v1::TokenControl& message) { return message.has_ack(); }, count)
        .ack();
  }
  v1::StopSequence AwaitStop(size_t stream) {
    return Await(stream, "Stop", [](const v1::TokenControl& m) { return m.has_stop(); }).stop();
  }
};

// What one client was told.
class FakeClient final : public ChoiceSink {
 public:
  bool Deliver(ChoiceEvent event) override {
    told_.Change([&](Told& told) {
      if (event.placement.has_value()) told.placement = event.placement;
      for (NewToken& token : event.tokens) told.tokens.push_back(std::move(token));
      if (event.result.has_value()) told.results.push_back(*event.result);
    });
    return true;
  }
  std::vector<NewToken> AwaitTokens(size_t count) {
    told_.Await("tokens", [&](const Told& told) { return told.tokens.size() >= count; });
    return told_.Get().tokens;
  }
  ChoiceResult AwaitEnd() {
    told_.Await("the end", [](const Told& told) { return !told.results.empty(); });
    const Told told = told_.Get();
    EXPECT_EQ(told.results.size(), 1u) << "the last word is said once";
    return told.results.empty() ? ChoiceResult() : told.results.back();
  }
  Placement AwaitPlacement() {
    told_.Await("a placement", [](const Told& told) { return told.placement.has_value(); });
    return told_.Get().placement.value_or(Placement());
  }
  std::vector<TokenId> ids() {
    std::vector<TokenId> ids;
    for (const NewToken& token : told_.Get().tokens) ids.push_back(token.id);
    return ids;
  }
  bool ended() { return !told_.Get().results.empty(); }

 private:
  struct Told {
    std::vector<NewToken> tokens;
    std::vector<ChoiceResult> results;
    std::optional<Placement> placement;
  };
  test::Watched<Told> told_;
};

class GatewayLinksTest : public ::testing::Test {
 protected:
  // A lease that no test outlives.
  static constexpr double kLongLeaseSeconds = 600;

  ~GatewayLinksTest() override { links_.Stop(); }

  // Dials the router and takes its hello; the router welcomes and names workers A and B, which are
  // dialled.
  void Begin(double lease_seconds = kLongLeaseSeconds) {
    links_.Start(relay_, {router_server_.address()});
    router_.AwaitHello(0);
    Welcome(0, lease_seconds);
    a_.AwaitHello(0);
    b_.AwaitHello(0);
  }
  void Welcome(size_t stream, double lease_seconds = kLongLeaseSeconds) {
    router_.Welcome(stream, lease_seconds);
    router_.Send(stream, State({{"A", a_server_.address()}, {"B", b_server_.address()}}));
  }
  static v1::RouterMessage State(const std::vector<std::pair<std::string, std::string>>& workers) {
    v1::RouterMessage message;
    message.mutable_state()->set_ready(true);
    message.mutable_state()->set_context_tokens(8192);
    for (const auto& [id, address] : workers) {
      v1::WorkerAddress* worker = message.mutable_state()->add_attention_workers();
      worker->set_worker_id(id);
      worker->set_address(address);
    }
    return message;
  }
  // A request of one choice.
  static tandem::GenerateSpec Spec(const std::string& id) {
    tandem::GenerateSpec spec;
    spec.request = RequestId(id);
    spec.prompt_ids = {1, 2, 3};
    spec.stop.max_tokens = 100;
    spec.choices.push_back({.choice = 0, .attempt = 0, .seed = 7, .emitted_ids = {}});
    return spec;
  }
  std::shared_ptr<FakeClient> Ask(const std::string& id) {
    auto client = std::make_shared<FakeClient>();
    EXPECT_EQ(relay_->Start(Spec(id), client), absl::OkStatus());
    return client;
  }
  void Place(size_t stream, const std::string& id, const std::string& worker,
             uint32_t attempt = 0) {
    v1::RouterMessage message;
    v1::Placed& placed = *message.mutable_placed();
    *placed.mutable_sequence() = Key(id, attempt);
    placed.set_topology("pd-afd");
    placed.set_prefill_worker("P");
    placed.mutable_attention()->set_worker_id(worker);
    placed.mutable_attention()->set_address(worker == "A" ? a_server_.address()
                                                          : b_server_.address());
    router_.Send(stream, message);
  }
  static v1::SequenceKey Key(const std::string& id, uint32_t attempt = 0) {
    v1::SequenceKey key;
    key.set_request_id(id);
    key.set_attempt(attempt);
    return key;
  }
  // A step of one sequence.
  static v1::TokenStep Step(uint64_t step, const v1::SequenceKey& key, uint32_t position,
                            const std::vector<uint32_t>& ids,
                            v1::EndReason end = v1::END_REASON_UNSPECIFIED,
                            const absl::Status& status = absl::OkStatus()) {
    v1::TokenStep message;
    message.set_step(step);
    v1::SequenceTokens& part = *message.add_sequences();
    *part.mutable_sequence() = key;
    part.set_position(position);
    part.mutable_ids()->Add(ids.begin(), ids.end());
    if (end != v1::END_REASON_UNSPECIFIED) {
      part.mutable_end()->set_reason(end);
      if (!status.ok()) ToProto(status, part.mutable_end()->mutable_status());
    }
    return message;
  }

  // Destroyed from the last: what reports goes before what is reported to.
  RealTimeSource time_;
  RouterDoor router_;
  TokensDoor a_, b_;
  GrpcLinks links_{{.gateway_id = "gateway-1", .model = "fake-model"}, time_};
  std::shared_ptr<Relay> relay_ = Relay::Create({}, time_, links_);
  test::TestServer router_server_{{&router_}}, a_server_{{&a_}}, b_server_{{&b_}};
};

}  // namespace tandem::gateway
