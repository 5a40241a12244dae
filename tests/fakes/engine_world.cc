#include "tests/fakes/engine_world.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "scheduler/base/check.h"

namespace tandem::test {
namespace {

// Waits for the answer that `call` is given to deliver.
template <typename Call>
absl::Status AnswerOf(Call call) {
  auto answer = std::make_shared<Promise<absl::Status>>();
  call([answer](absl::Status status) { answer->Set(std::move(status)); });
  return answer->Wait().value_or(absl::DeadlineExceededError("no answer"));
}

}  // namespace

void HoldAt(EngineNode& node, FakeCallKind kind, uint64_t nth, Latch& there, Latch& go) {
  node.backend->SetHook([&there, &go, kind, nth,
                         seen = std::make_shared<std::atomic<uint64_t>>(0)](const FakeCall& call) {
    if (call.kind == kind && (*seen)++ == nth) {
      there.Open();
      go.Wait();
    }
    return absl::OkStatus();
  });
}

EngineWorld::EngineWorld()
    : activation_(loopback_activation_), kv_(loopback_kv_), gateway_("gateway") {}

EngineWorld::~EngineWorld() {
  for (auto& node : nodes_) node->core->Stop();
}

EngineNode& EngineWorld::Add(const std::string& name, std::set<Stage> stages, const Tune& tune) {
  FakeOptions options;
  options.stages = stages;
  EngineConfig config;
  config.worker = WorkerId(name);
  config.model = "hash-chain";
  config.stages = std::move(stages);
  config.chunk_tokens = 4;
  if (tune) tune(config, options);
  config.kv_blocks = options.kv_blocks;
  config.block_tokens = options.block_tokens;
  auto node = std::make_unique<EngineNode>();
  node->backend = std::make_unique<FakeBackend>(options);
  node->core =
      std::make_unique<WorkerCore>(config, *node->backend, time_, activation_, kv_, node->listener);
  loopback_activation_.Add(config.worker, node->core->ffn());
  loopback_kv_.Add(config.worker, node->core->kv());
  nodes_.push_back(std::move(node));
  return *nodes_.back();
}

void EngineWorld::Start() {
  for (auto& node : nodes_) {
    node->core->Start();
    if (node->core->config().stages.contains(Stage::kAttention))
      gateway_.Attach(node->core->tokens());
  }
}

absl::Status EngineWorld::Decode(EngineNode& node, step::DecodeRequest request) {
  return AnswerOf(
      [&](Answer answer) { node.core->commands().Decode(std::move(request), std::move(answer)); });
}

absl::Status EngineWorld::Prefill(EngineNode& node, const step::DecodeRequest& request,
                                  const EngineNode& attention) {
  PrefillOrder order;
  order.job.reservation = request.reservation;
  order.job.sequence = {request.request, request.choices[0].choice, request.choices[0].attempt};
  order.job.ids = request.prompt_ids;
  const std::vector<TokenId>& emitted = request.choices[0].emitted_ids;
  order.job.ids.insert(order.job.ids.end(), emitted.begin(), emitted.end());
  order.attention_worker = attention.id();
  order.attention_address = "loopback";
  return AnswerOf(
      [&](Answer answer) { node.core->commands().Prefill(std::move(order), std::move(answer)); });
}

absl::Status EngineWorld::Release(EngineNode& node, const std::string& request, EndReason reason) {
  return AnswerOf([&](Answer answer) {
    node.core->commands().Release(ReservationId(request), {}, reason, std::move(answer));
  });
}

absl::Status EngineWorld::SetGroup(EngineNode& node, const std::vector<std::string>& holders,
                                   uint64_t version, uint64_t shard_epoch) {
  std::vector<FfnEndpoint> endpoints;
  endpoints.reserve(holders.size());
  for (const std::string& holder : holders)
    endpoints.push_back({WorkerId(holder), "loopback", shard_epoch, ShardOf(holder)});
  if (version == 0) version = ++group_version_;
  return AnswerOf([&](Answer answer) {
    node.core->commands().SetGroup(1, version, std::move(endpoints), std::move(answer));
  });
}

EngineNode& EngineWorld::Node(const std::string& name) {
  const auto found = std::find_if(nodes_.begin(), nodes_.end(),
                                  [&](const auto& node) { return node->id() == WorkerId(name); });
  TANDEM_CHECK(found != nodes_.end());
  return **found;
}

FfnShard EngineWorld::ShardOf(const std::string& name) const {
  for (const auto& node : nodes_) {
    if (node->id() == WorkerId(name)) return node->backend->info().shard;
  }
  return {};
}

void EngineWorld::WaitForQueuedRows(EngineNode& node, uint64_t computed_calls, uint64_t rows) {
  for (;;) {
    const WorkerReport report = node.core->Report();
    if (report.counters.ffn_calls == computed_calls && report.ffn_rows_queued == rows) break;
    Sync(node);
  }
  Sync(node);
}

void EngineWorld::Sync(EngineNode& node) {
  // The second comes after the round of the first, at whose end the report is published.
  for (int round = 0; round < 2; round++) {
    EXPECT_TRUE(Release(node, "no such reservation", EndReason::kCancelled).ok());
  }
}

WorkerReport EngineWorld::Report(EngineNode& node) {
  Sync(node);
  return node.core->Report();
}

step::DecodeRequest EngineWorld::Ask(const std::string& name, std::vector<TokenId> prompt,
                                     uint32_t max_tokens) const {
  step::DecodeRequest request;
  request.reservation = ReservationId(name);
  request.gateway = gateway_.id();
  request.request = RequestId(name);
  request.choices = {ChoiceStart{}};
  request.prompt_ids = std::move(prompt);
  request.sampling.temperature = 0;
  request.stop.max_tokens = max_tokens;
  return request;
}

absl::Status EngineWorld::Generate(EngineNode& attention, EngineNode* prefill,
                                   step::DecodeRequest request) {
  request.local_prefill = prefill == nullptr;
  const step::DecodeRequest copy = request;
  const absl::Status admitted = Decode(attention, std::move(request));
  if (!admitted.ok() || prefill == nullptr || copy.prompt_ids.size() < 2) return admitted;
  return Prefill(*prefill, copy, attention);
}

void EngineWorld::ExpectExact(const step::DecodeRequest& request, uint32_t choice) {
  const SequenceKey key{request.request, choice, request.choices[0].attempt};
  const ReceivedSequence received = gateway_.WaitForEnd(key);
  ASSERT_TRUE(received.end.has_value());
  EXPECT_EQ(received.end->reason, EndReason::kLength) << received.end->status;
  EXPECT_TRUE(received.consistent);
  uint64_t seed = 0;
  for (const ChoiceStart& start : request.choices) {
    if (start.choice == choice) seed = start.seed;
  }
  EXPECT_EQ(received.tokens, ExpectedTokens(model_, request.prompt_ids, request.stop.max_tokens,
                                            request.sampling, seed))
      << ToString(key);
}

void EngineWorld::ExpectEmpty(EngineNode& node) {
  const WorkerReport report = Report(node);
  EXPECT_EQ(report.load.sequences, 0u);
  EXPECT_EQ(report.load.prefills, 0u);
  EXPECT_TRUE(report.live.empty());
  EXPECT_EQ(report.running, 0u);
  EXPECT_EQ(report.waiting, 0u);
  EXPECT_EQ(report.kv_blocks_leaked, 0u);
  if (node.core->config().stages != std::set<Stage>{Stage::kFfn}) {
    EXPECT_EQ(report.load.kv_blocks_free, node.core->config().kv_blocks);
  }
}

}  // namespace tandem::test
