// Three kinds of worker in one process, talking over real gRPC: the engines of workers/engine on
// fake backends, whose numbers betray any row, block, layer or position that went astray.

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

namespace tandem {
namespace {

// One worker as the daemon puts it together, without a router.
struct Node {
  Node(const std::string& name, std::set<Stage> stages, TimeSource& time)
      : handoff(time, Random(1), {}), kv(time, Random(2), {}) {
    test::FakeOptions options;
    options.stages = stages;
    backend = std::make_unique<test::FakeBackend>(options);
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
    server = std::make_unique<test::TestServer>(
        std::vector<grpc::Service*>{handoff_service.get(), kv_service.get(), token_service.get()});
    core->Start();
  }
  ~Node() {
    server->Kill();
    core->Stop();
  }

  template <typename Call>
  absl::Status AnswerOf(Call call) {
    auto answer = std::make_shared<test::Promise<absl::Status>>();
    call(core->commands(), [answer](absl::Status status) { answer->Set(std::move(status)); });
    return answer->Wait().value_or(absl::DeadlineExceededError("no answer"));
  }

  HandoffConnector handoff;
  GrpcKvConnector kv;
  test::RecordingListener listener;
  std::unique_ptr<test::FakeBackend> backend;
  std::unique_ptr<WorkerCore> core;
  std::unique_ptr<HandoffService> handoff_service;
  std::unique_ptr<KvService> kv_service;
  std::unique_ptr<TokenService> token_service;
  std::unique_ptr<test::TestServer> server;
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
    EXPECT_EQ(found->second,
              test::ExpectedTokens(test::FakeOptions().dimensions, prompt, count, greedy))
        << name;
  }

  RealTimeSource time_;
  uint64_t group_version_ = 0;
};

// Goal: pd-afd over real gRPC gives the tokens that one process gives. Method: eight prompts of
// different lengths at once.
TEST_F(EngineRpc, PrefillAttentionAndFfnWorkersGiveTheExactTokens) {
  Node ffn("F", {Stage::kFfn}, time_);
  Node attention("A", {Stage::kAttention}, time_);
  Node prefill("P", {Stage::kPrefill}, time_);
  SetGroup(attention, {{"F", &ffn}});
  Reader reader(attention.server->address());
  constexpr uint32_t kRequests = 8;
  for (uint32_t i = 0; i < kRequests; ++i) {
    Generate(attention, &prefill, "r" + std::to_string(i), Prompt(i, 2 + 3 * i), 10 + i);
  }
  const auto tokens = reader.ReadToEnds(kRequests);
  for (uint32_t i = 0; i < kRequests; ++i) {
    ExpectExact(tokens, "r" + std::to_string(i), Prompt(i, 2 + 3 * i), 10 + i);
  }
  EXPECT_EQ(attention.kv_service->dropped_frames(), 0u);
  EXPECT_EQ(attention.handoff.mismatched_replies(), 0u);
  EXPECT_EQ(ffn.handoff_service->malformed_calls(), 0u);
}

// Goal: an FFN worker's death in mid-call changes no token. Method: the first holder dies with a
// call in its hands; its rows go to the second.
TEST_F(EngineRpc, FfnWorkersDeathInMidCallChangesNoToken) {
  auto first = std::make_unique<Node>("F1", std::set<Stage>{Stage::kFfn}, time_);
  Node second("F2", {Stage::kFfn}, time_);
  Node attention("A", {Stage::kAttention}, time_);
  Node prefill("P", {Stage::kPrefill}, time_);
  test::Latch there, go;
  std::atomic<int> calls{0};
  first->backend->SetHook([&](const test::FakeCall& call) {
    if (call.kind == test::FakeCallKind::kFfn && calls.fetch_add(1) == 7) {
      there.Open();
      go.Wait();
    }
    return absl::OkStatus();
  });
  SetGroup(attention, {{"F1", first.get()}});
  Reader reader(attention.server->address());
  for (uint32_t i = 0; i < 3; ++i)
    Generate(attention, &prefill, "r" + std::to_string(i), Prompt(i, 5 + i), 20);
  ASSERT_TRUE(there.Wait());
  SetGroup(attention, {{"F1", first.get()}, {"F2", &second}});
  first->server->Kill();
  const auto tokens = reader.ReadToEnds(3);
  go.Open();
  for (uint32_t i = 0; i < 3; ++i)
    ExpectExact(tokens, "r" + std::to_string(i), Prompt(i, 5 + i), 20);
  EXPECT_GE(attention.listener.shards_lost("F1"), 1u);
  first.reset();
}

}  // namespace
}  // namespace tandem
