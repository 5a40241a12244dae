#pragma once

// What tests of engines over gRPC share: workers as the daemon puts them together, on fake backends
// whose numbers betray any row, block, layer or position that went astray.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "services/runtime/real_time.h"
#include "tests/fakes/fake_backend.h"
#include "tests/fakes/latch.h"
#include "tests/fakes/token_receiver.h"
#include "tests/integration/rpc_support.h"
#include "workers/engine/worker_core.h"
#include "workers/rpc/handoff_connector.h"
#include "workers/rpc/handoff_service.h"
#include "workers/rpc/kv_connector.h"
#include "workers/rpc/kv_service.h"
#include "workers/rpc/token_service.h"

namespace tandem::test {

// One worker as the daemon puts it together, without a router.
struct Node {
  Node(const std::string& name, std::set<Stage> stages, TimeSource& time, LinkLimits limits = {})
      : handoff(time, Random(1), limits), kv(time, Random(2), {}) {
    FakeOptions options;
    options.stages = stages;
    backend = std::make_unique<FakeBackend>(options);
    EngineConfig config;
    config.worker = WorkerId(name);
    config.model = "hash-chain";
    config.stages = std::move(stages);
    config.chunk_tokens = 4;
    config.kv_blocks = options.kv_blocks;
    config.block_tokens = options.block_tokens;
    core = std::make_unique<WorkerCore>(config, *backend, time, handoff, kv, listener);
    handoff_service = std::make_unique<HandoffService>(core->ffn());
    kv_service = std::make_unique<KvService>(core->kv());
    token_service = std::make_unique<TokenService>(core->tokens());
    server = std::make_unique<TestServer>(
        std::vector<grpc::Service*>{handoff_service.get(), kv_service.get(), token_service.get()});
    core->Start();
  }
  ~Node() {
    server->Kill();
    core->Stop();
  }

  template <typename Call>
  absl::Status AnswerOf(Call call) {
    auto answer = std::make_shared<Promise<absl::Status>>();
    call(core->commands(), [answer](absl::Status status) { answer->Set(std::move(status)); });
    return answer->Wait().value_or(absl::DeadlineExceededError("no answer"));
  }

  HandoffConnector handoff;
  GrpcKvConnector kv;
  RecordingListener listener;
  std::unique_ptr<FakeBackend> backend;
  std::unique_ptr<WorkerCore> core;
  std::unique_ptr<HandoffService> handoff_service;
  std::unique_ptr<KvService> kv_service;
  std::unique_ptr<TokenService> token_service;
  std::unique_ptr<TestServer> server;
};

// A gateway's token stream, read to the ends of `sequences` sequences; acknowledges each message.
class Reader {
 public:
  explicit Reader(const std::string& address)
      : stub_(v1::Tokens::NewStub(MakeChannel(address))), stream_(stub_->StepTokens(&context_)) {
    v1::TokenControl hello;
    hello.mutable_hello()->set_gateway_id("g");
    hello.mutable_hello()->set_protocol_version(1);
    stream_->Write(hello);
  }
  ~Reader() {
    context_.TryCancel();
    stream_->Finish();
  }
  std::map<std::string, std::vector<TokenId>> ReadToEnds(size_t sequences) {
    std::map<std::string, std::vector<TokenId>> tokens;
    size_t ended = 0;
    v1::TokenStep step;
    while (ended < sequences && stream_->Read(&step)) {
      for (const v1::SequenceTokens& part : step.sequences()) {
        std::vector<TokenId>& mine = tokens[part.sequence().request_id()];
        EXPECT_TRUE(part.ids().empty() || part.position() == mine.size());
        mine.insert(mine.end(), part.ids().begin(), part.ids().end());
        if (!part.has_end()) continue;
        ++ended;
        EXPECT_EQ(part.end().reason(), v1::END_REASON_LENGTH) << part.end().status().message();
      }
      v1::TokenControl ack;
      ack.mutable_ack()->set_step(step.step());
      stream_->Write(ack);
    }
    EXPECT_EQ(ended, sequences);
    return tokens;
  }

 private:
  grpc::ClientContext context_;
  std::unique_ptr<v1::Tokens::Stub> stub_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::TokenControl, v1::TokenStep>> stream_;
};

class EngineRpc : public ::testing::Test {
 protected:
  static std::vector<TokenId> Prompt(uint32_t seed, uint32_t length) {
    std::vector<TokenId> ids;
    for (uint32_t i = 0; i < length; ++i) ids.push_back((seed * 131 + i * 17) % 1000);
    return ids;
  }
  void SetGroup(Node& attention, std::vector<std::pair<std::string, Node*>> holders) {
    std::vector<FfnEndpoint> endpoints;
    for (auto& [name, node] : holders)
      endpoints.push_back({WorkerId(name), node->server->address(), 1});
    SetGroup(attention, std::move(endpoints));
  }
  void SetGroup(Node& attention, std::vector<FfnEndpoint> endpoints) {
    EXPECT_TRUE(attention
                    .AnswerOf([&](CommandDoor& door, Answer answer) {
                      door.SetGroup(1, ++group_version_, std::move(endpoints), std::move(answer));
                    })
                    .ok());
  }
  // Decode on `attention`, its prompt's KV from `prefill` (null: its own).
  void Generate(Node& attention, Node* prefill, const std::string& name,
                std::vector<TokenId> prompt, uint32_t max_tokens) {
    step::DecodeRequest request;
    request.reservation = ReservationId(name);
    request.gateway = GatewayId("g");
    request.request = RequestId(name);
    request.choices = {ChoiceStart{}};
    request.prompt_ids = prompt;
    request.sampling.temperature = 0;
    request.stop.max_tokens = max_tokens;
    request.local_prefill = prefill == nullptr;
    const absl::Status admitted = attention.AnswerOf([&](CommandDoor& door, Answer answer) {
      door.Decode(std::move(request), std::move(answer));
    });
    ASSERT_TRUE(admitted.ok()) << admitted;
    if (prefill == nullptr) return;
    PrefillOrder order;
    order.job.reservation = ReservationId(name);
    order.job.sequence = {RequestId(name), 0, 0};
    order.job.ids = std::move(prompt);
    order.attention_worker = WorkerId("A");
    order.attention_address = attention.server->address();
    const absl::Status queued = prefill->AnswerOf([&](CommandDoor& door, Answer answer) {
      door.Prefill(std::move(order), std::move(answer));
    });
    ASSERT_TRUE(queued.ok()) << queued;
  }
  void ExpectExact(const std::map<std::string, std::vector<TokenId>>& tokens,
                   const std::string& name, const std::vector<TokenId>& prompt, uint32_t count) {
    Sampling greedy;
    greedy.temperature = 0;
    const auto found = tokens.find(name);
    ASSERT_NE(found, tokens.end()) << name;
    EXPECT_EQ(found->second, ExpectedTokens(FakeOptions().dimensions, prompt, count, greedy))
        << name;
  }

  RealTimeSource time_;
  uint64_t group_version_ = 0;
};

}  // namespace tandem::test
