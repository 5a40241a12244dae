// StepTokens over real gRPC in one process: TokenService with a puppet for the attention engine and
// a plain client.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <vector>

#include "tests/integration/rpc_support.h"
#include "workers/rpc/token_service.h"

namespace tandem {
namespace {

using test::Watched;
using ::testing::HasSubstr;

struct Stopped {
  SequenceKey sequence;
  uint32_t position = 0;
  EndReason reason = EndReason::kFailed;
};

class PuppetDoor final : public TokenDoor {
 public:
  struct Seen {
    std::vector<GatewayId> attached;
    std::vector<std::vector<step::ResumePoint>> resumes;
    std::vector<std::shared_ptr<TokenSink>> sinks;
    std::vector<const TokenSink*> detached;
    std::vector<uint64_t> acknowledged;
    std::vector<Stopped> stopped;
  };
  void Attach(const GatewayId& gateway, std::vector<step::ResumePoint> resume,
              std::shared_ptr<TokenSink> sink) override {
    seen.Change([&](Seen& s) {
      s.attached.push_back(gateway);
      s.resumes.push_back(std::move(resume));
      s.sinks.push_back(std::move(sink));
    });
  }
  void Detach(const GatewayId&, const TokenSink* sink) override {
    seen.Change([&](Seen& s) { s.detached.push_back(sink); });
  }
  void Acknowledge(const GatewayId&, uint64_t step) override {
    seen.Change([&](Seen& s) { s.acknowledged.push_back(step); });
  }
  void Stop(const SequenceKey& sequence, uint32_t position, EndReason reason) override {
    seen.Change([&](Seen& s) { s.stopped.push_back({sequence, position, reason}); });
  }
  std::shared_ptr<TokenSink> AwaitSink(size_t count) {
    seen.Await("Attach", [&](const Seen& s) { return s.sinks.size() >= count; });
    return seen.Get().sinks.at(count - 1);
  }
  Watched<Seen> seen;
};

class Gateway {
 public:
  explicit Gateway(const std::string& address)
      : stub_(v1::Tokens::NewStub(MakeChannel(address))), stream_(stub_->StepTokens(&context_)) {}
  ~Gateway() {
    if (finished_) return;
    context_.TryCancel();
    stream_->Finish();
  }
  bool Hello(const std::string& id = "g1") {
    v1::TokenControl message;
    message.mutable_hello()->set_gateway_id(id);
    message.mutable_hello()->set_protocol_version(1);
    return stream_->Write(message);
  }
  bool Write(const v1::TokenControl& message) { return stream_->Write(message); }
  bool Read(v1::TokenStep& step) { return stream_->Read(&step); }
  void WritesDone() { stream_->WritesDone(); }
  grpc::Status Finish() {
    finished_ = true;
    return stream_->Finish();
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<v1::Tokens::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::TokenControl, v1::TokenStep>> stream_;
  bool finished_ = false;
};

step::OutboxMessage Message(uint64_t step, TokenId id) {
  step::Emit emit;
  emit.sequence = {.request = RequestId("req"), .choice = 1, .attempt = 3};
  emit.position = static_cast<uint32_t>(step - 1);
  emit.token = step::SampledToken{.id = id, .logprob = 0, .top = {}, .decode_step = 2 * step};
  return {.step = step, .emits = {emit}};
}

void SetKey(v1::SequenceKey* key) {
  key->set_request_id("req");
  key->set_choice(1);
  key->set_attempt(3);
}

class TokensRpc : public ::testing::Test {
 protected:
  PuppetDoor door_;
  TokenService service_{door_};
  test::TestServer server_{{&service_}};
};

TEST_F(TokensRpc, StepsArriveInOrderAndWhole) {
  Gateway gateway(server_.address());
  ASSERT_TRUE(gateway.Hello());
  auto sink = door_.AwaitSink(1);
  EXPECT_EQ(door_.seen.Get().attached[0].value(), "g1");
  constexpr uint64_t kSteps = 500;
  for (uint64_t step = 1; step <= kSteps; ++step) sink->Send(Message(step, 1000 + step), {{}});
  for (uint64_t step = 1; step <= kSteps; ++step) {
    v1::TokenStep got;
    ASSERT_TRUE(gateway.Read(got));
    ASSERT_EQ(got.step(), step);
    ASSERT_EQ(got.sequences_size(), 1);
    EXPECT_EQ(got.sequences(0).sequence().request_id(), "req");
    EXPECT_EQ(got.sequences(0).sequence().attempt(), 3u);
    EXPECT_EQ(got.sequences(0).position(), step - 1);
    ASSERT_EQ(got.sequences(0).ids_size(), 1);
    EXPECT_EQ(got.sequences(0).ids(0), 1000 + step);
    ASSERT_EQ(got.sequences(0).decode_steps_size(), 1);
    EXPECT_EQ(got.sequences(0).decode_steps(0), 2 * step);
    EXPECT_FALSE(got.sequences(0).has_end());
  }
}

TEST_F(TokensRpc, EndCarriesReasonStatusLogprobsAndCost) {
  Gateway gateway(server_.address());
  ASSERT_TRUE(gateway.Hello());
  step::OutboxMessage message = Message(1, 42);
  message.emits[0].token->logprob = -0.5f;
  message.emits[0].token->top = {{42, -0.5f}, {7, -1.5f}};
  message.emits[0].end =
      SequenceEnd{.reason = EndReason::kFailed, .status = absl::UnavailableError("no FFN worker")};
  SequenceCost cost;
  cost.times = {{.stage = Stage::kPrefill, .worker = "p0", .seconds = 0.5, .calls = 60},
                {.stage = Stage::kFfn, .worker = "f0", .seconds = 0.25, .calls = 30}};
  cost.kv_transfer_seconds = 0.125;
  door_.AwaitSink(1)->Send(message, {cost});
  v1::TokenStep got;
  ASSERT_TRUE(gateway.Read(got));
  const v1::SequenceTokens& tokens = got.sequences(0);
  ASSERT_EQ(tokens.logprobs_size(), 1);
  EXPECT_EQ(tokens.logprobs(0).logprob(), -0.5f);
  EXPECT_EQ(tokens.logprobs(0).top_ids(1), 7u);
  EXPECT_EQ(tokens.logprobs(0).top_logprobs(1), -1.5f);
  EXPECT_EQ(tokens.end().reason(), v1::END_REASON_FAILED);
  EXPECT_EQ(tokens.end().status().code(), static_cast<int>(absl::StatusCode::kUnavailable));
  ASSERT_EQ(tokens.end().times_size(), 2);
  EXPECT_EQ(tokens.end().times(0).stage(), v1::STAGE_PREFILL);
  EXPECT_EQ(tokens.end().times(1).worker_id(), "f0");
  EXPECT_EQ(tokens.end().times(1).seconds(), 0.25);
  EXPECT_EQ(tokens.end().kv_transfer_seconds(), 0.125);
}

TEST_F(TokensRpc, AcknowledgementsAndStopsReachTheEngine) {
  Gateway gateway(server_.address());
  v1::TokenControl hello;
  hello.mutable_hello()->set_gateway_id("g1");
  hello.mutable_hello()->set_protocol_version(1);
  v1::ResumePoint& point = *hello.mutable_hello()->add_resume();
  SetKey(point.mutable_sequence());
  point.set_received(12);
  ASSERT_TRUE(gateway.Write(hello));
  v1::TokenControl ack;
  ack.mutable_ack()->set_step(99);
  ASSERT_TRUE(gateway.Write(ack));
  v1::TokenControl stop;
  SetKey(stop.mutable_stop()->mutable_sequence());
  stop.mutable_stop()->set_position(17);
  stop.mutable_stop()->set_reason(v1::END_REASON_STOPPED);
  ASSERT_TRUE(gateway.Write(stop));
  ASSERT_TRUE(
      door_.seen.Await("the stop", [](const PuppetDoor::Seen& s) { return !s.stopped.empty(); }));
  const PuppetDoor::Seen seen = door_.seen.Get();
  ASSERT_EQ(seen.resumes.at(0).size(), 1u);
  EXPECT_EQ(seen.resumes[0][0].received, 12u);
  EXPECT_EQ(ToString(seen.resumes[0][0].sequence), "req#1.3");
  EXPECT_EQ(seen.acknowledged, std::vector<uint64_t>{99});
  EXPECT_EQ(ToString(seen.stopped[0].sequence), "req#1.3");
  EXPECT_EQ(seen.stopped[0].position, 17u);
  EXPECT_EQ(seen.stopped[0].reason, EndReason::kStopped);
}

TEST_F(TokensRpc, GatewayThatLeavesIsDetachedOnceWithItsOwnSink) {
  auto first = std::make_unique<Gateway>(server_.address());
  ASSERT_TRUE(first->Hello());
  auto sink = door_.AwaitSink(1);
  first.reset();
  ASSERT_TRUE(
      door_.seen.Await("Detach", [](const PuppetDoor::Seen& s) { return s.detached.size() == 1; }));
  EXPECT_EQ(door_.seen.Get().detached[0], sink.get());
  sink->Send(Message(1, 1), {{}});  // dropped: the engine has not heard yet
}

TEST_F(TokensRpc, ReplacedStreamEndsWithTheReasonAndTheNewerOneGoesOn) {
  Gateway older(server_.address());
  ASSERT_TRUE(older.Hello());
  auto first = door_.AwaitSink(1);
  Gateway newer(server_.address());
  ASSERT_TRUE(newer.Hello());
  auto second = door_.AwaitSink(2);
  first->Close(absl::AbortedError("replaced by a newer stream"));
  first->Send(Message(1, 1), {{}});
  second->Send(Message(1, 1), {{}});
  v1::TokenStep got;
  EXPECT_FALSE(older.Read(got));
  const grpc::Status status = older.Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::ABORTED);
  EXPECT_THAT(status.error_message(), HasSubstr("replaced"));
  ASSERT_TRUE(newer.Read(got));
  EXPECT_EQ(got.step(), 1u);
}

TEST_F(TokensRpc, WorkerThatStopsSaysItsLastFirst) {
  Gateway gateway(server_.address());
  ASSERT_TRUE(gateway.Hello());
  auto sink = door_.AwaitSink(1);
  for (uint64_t step = 1; step <= 200; ++step) sink->Send(Message(step, 1), {{}});
  sink->Close(absl::UnavailableError("worker a stops"));
  v1::TokenStep got;
  for (uint64_t step = 1; step <= 200; ++step) {
    ASSERT_TRUE(gateway.Read(got)) << step;
    EXPECT_EQ(got.step(), step);
  }
  EXPECT_FALSE(gateway.Read(got));
  EXPECT_EQ(gateway.Finish().error_code(), grpc::StatusCode::UNAVAILABLE);
}

TEST_F(TokensRpc, MessagesThatMakeNoSenseEndTheStream) {
  v1::TokenControl empty, ack, stop, version, nameless;
  ack.mutable_ack()->set_step(1);
  SetKey(stop.mutable_stop()->mutable_sequence());
  version.mutable_hello()->set_gateway_id("g");
  version.mutable_hello()->set_protocol_version(9);
  nameless.mutable_hello()->set_protocol_version(1);
  v1::TokenControl hello = version;
  hello.mutable_hello()->set_protocol_version(1);
  v1::TokenControl anonymous = stop;
  anonymous.mutable_stop()->mutable_sequence()->clear_request_id();
  struct Case {
    std::vector<v1::TokenControl> messages;
    const char* reason;
  };
  const Case cases[] = {
      {{empty}, "without hello"},          {{ack}, "must be hello"},
      {{stop}, "must be hello"},           {{version}, "protocol_version: 9"},
      {{nameless}, "gateway_id: 0 bytes"}, {{hello, hello}, "a second hello"},
      {{hello, stop}, "end reason: 0"},    {{hello, anonymous}, "request_id: 0 bytes"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(c.reason);
    Gateway gateway(server_.address());
    for (const v1::TokenControl& message : c.messages) ASSERT_TRUE(gateway.Write(message));
    v1::TokenStep got;
    EXPECT_FALSE(gateway.Read(got));
    const grpc::Status status = gateway.Finish();
    EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
    EXPECT_THAT(status.error_message(), HasSubstr(c.reason));
  }
  EXPECT_TRUE(door_.seen.Get().stopped.empty());
}

}  // namespace
}  // namespace tandem
