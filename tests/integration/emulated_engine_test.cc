// Emulated devices behind the real engines, in one process: what a step takes on the devices' own
// clock is what the cost model says, whatever the host adds, and the ledger accounts for all of it.

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/cost/cycle.h"
#include "services/runtime/catalog_files.h"
#include "services/runtime/real_time.h"
#include "tests/fakes/token_receiver.h"
#include "workers/backend/emulated/emulated_backend.h"
#include "workers/backend/synthetic/hash_chain.h"
#include "workers/backend/synthetic/synthetic_backend.h"
#include "workers/connector/activation/loopback.h"
#include "workers/connector/kv/loopback.h"
#include "workers/engine/worker_core.h"

namespace tandem {
namespace {

using ledger::Cause;
using ledger::LedgerState;

constexpr uint32_t kBlockTokens = 16;
constexpr double kTimeScale = 20;  // two engines and a sanitizer must keep up

cost::CostTable Table(const std::string& device, const std::string& shape) {
  static const model::Catalog* const catalog = [] {
    auto read =
        LoadCatalog({std::string(std::getenv("TANDEM_SOURCE_DIR")) + "/scheduler/model/catalog"});
    EXPECT_TRUE(read.ok()) << read.status();
    return new model::Catalog(*std::move(read));
  }();
  cost::CostOptions options;
  options.precision.weights = model::Dtype::kFp8;
  auto table =
      cost::CostTable::Create(*catalog->FindDevice(device), *catalog->FindModel(shape), options);
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

struct Node {
  std::unique_ptr<EmulatedBackend> backend;
  test::RecordingListener listener;
  std::unique_ptr<WorkerCore> core;
};

// What the device did or waited for: one thing after the other.
bool FillsTheLine(SpanKind kind) {
  return kind != SpanKind::kStep && kind != SpanKind::kA2f && kind != SpanKind::kServed &&
         kind != SpanKind::kKvSent;
}

// All spans of a device, added up in the device's seconds. Its line has no gap between them.
class SpanSums {
 public:
  explicit SpanSums(const TraceLog& log) {
    uint64_t mark = 0;
    std::vector<Span> spans;
    EXPECT_EQ(log.ring().Read(mark, kTraceSpans, spans), 0u);
    std::optional<Instant> line;
    for (const Span& span : spans) {
      if (FillsTheLine(span.kind)) {
        EXPECT_EQ(span.begin, line.value_or(span.begin)) << static_cast<int>(span.kind);
        line = span.end;
      }
      const double seconds = (span.end - span.begin).seconds() / kTimeScale;
      count_[span.kind]++;
      seconds_[span.kind] += seconds;
      if (span.kind == SpanKind::kWait) waits_[span.cause] += seconds;
    }
  }
  uint64_t count(SpanKind kind) { return count_[kind]; }
  double seconds(SpanKind kind) { return seconds_[kind]; }
  double seconds(Cause cause) { return waits_[cause]; }

 private:
  std::map<SpanKind, uint64_t> count_;
  std::map<SpanKind, double> seconds_;
  std::map<Cause, double> waits_;
};

class EmulatedEngine : public ::testing::Test {
 protected:
  ~EmulatedEngine() override {
    for (auto& [name, node] : nodes_) node->core->Stop();
  }

  Node& Add(const std::string& name, std::set<Stage> stages, const cost::CostTable& table) {
    SyntheticOptions numbers;
    numbers.stages = stages;
    numbers.dimensions = {static_cast<uint32_t>(table.shape().layers), 4, 1, 1, 1000, 4096};
    const bool keeps_kv = stages != std::set<Stage>{Stage::kFfn};
    numbers.kv_blocks = keeps_kv ? 256 : 0;
    numbers.block_tokens = kBlockTokens;
    dimensions_ = numbers.dimensions;
    EmulatedOptions options{.stages = stages,
                            .shard = {},
                            .kv_tokens = numbers.kv_blocks * kBlockTokens,
                            .time_scale = kTimeScale};
    auto node = std::make_unique<Node>();
    auto backend =
        EmulatedBackend::Create(options, table, std::make_unique<SyntheticBackend>(numbers), time_,
                                [this](Instant when) { time_.WaitUntil(when); });
    EXPECT_TRUE(backend.ok()) << backend.status();
    node->backend = *std::move(backend);
    EngineConfig config;
    config.worker = WorkerId(name);
    config.model = table.shape().name;
    config.stages = std::move(stages);
    config.kv_blocks = numbers.kv_blocks;
    config.block_tokens = kBlockTokens;
    config.chunk_tokens = 512;
    config.max_micro_batches = 1;
    node->core = std::make_unique<WorkerCore>(config, *node->backend, time_, activation_, kv_,
                                              node->listener);
    activation_.Add(config.worker, node->core->ffn());
    kv_.Add(config.worker, node->core->kv());
    return *(nodes_[name] = std::move(node));
  }
  void Start() {
    for (auto& [name, node] : nodes_) {
      node->core->Start();
      if (node->core->config().stages.contains(Stage::kAttention))
        gateway_.Attach(node->core->tokens());
    }
  }
  void SetGroup(Node& node, const std::vector<std::string>& names) {
    std::vector<FfnEndpoint> holders;
    for (const std::string& name : names) holders.push_back({WorkerId(name), "loopback", 1});
    test::Promise<absl::Status> answer;
    node.core->commands().SetGroup(1, 1, std::move(holders),
                                   [&](absl::Status status) { answer.Set(std::move(status)); });
    ASSERT_EQ(answer.Wait(), absl::OkStatus());
  }
  // One greedy sequence to its end, with a local prefill.
  void Generate(Node& node, const std::vector<TokenId>& prompt, uint32_t tokens,
                const std::string& name = "r") {
    step::DecodeRequest request;
    request.reservation = ReservationId(name);
    request.gateway = gateway_.id();
    request.request = RequestId(name);
    request.choices = {ChoiceStart{}};
    request.prompt_ids = prompt;
    request.sampling.temperature = 0;
    request.stop.max_tokens = tokens;
    request.local_prefill = true;
    test::Promise<absl::Status> answer;
    node.core->commands().Decode(std::move(request),
                                 [&](absl::Status status) { answer.Set(std::move(status)); });
    ASSERT_EQ(answer.Wait(), absl::OkStatus());
    const test::ReceivedSequence received = gateway_.WaitForEnd({RequestId(name), 0, 0});
    ASSERT_TRUE(received.end.has_value());
    EXPECT_EQ(received.end->reason, EndReason::kLength) << received.end->status;
    Sampling greedy;
    greedy.temperature = 0;
    EXPECT_EQ(received.tokens,
              synthetic::ReferenceTokens(dimensions_, kBlockTokens, prompt, tokens, greedy));
  }
  // The node's ledger once it has entered its last state: what is asked first is answered before.
  ledger::LedgerSnapshot Books(Node& node) {
    for (int round = 0; round < 2; round++) {
      test::Promise<absl::Status> answer;
      node.core->commands().Release(ReservationId("none"), {}, EndReason::kCancelled,
                                    [&](absl::Status status) { answer.Set(std::move(status)); });
      EXPECT_EQ(answer.Wait(), absl::OkStatus());
    }
    return node.core->Report().ledger;
  }
  // Device seconds of a state and its causes; all causes without any named.
  static double Seconds(const ledger::LedgerSnapshot& books, LedgerState state,
                        std::optional<Cause> cause = std::nullopt,
                        std::optional<ledger::LedgerStage> stage = std::nullopt) {
    double sum = 0;
    for (const ledger::LedgerCell& cell : books.cells) {
      if (cell.state != state || (cause && cell.cause != *cause) || (stage && cell.stage != *stage))
        continue;
      sum += cell.time.seconds();
    }
    return sum;
  }
  static double Sum(const ledger::LedgerSnapshot& books) {
    double sum = 0;
    for (const ledger::LedgerCell& cell : books.cells) sum += cell.time.seconds();
    return sum;
  }

  RealTimeSource time_;
  LoopbackActivationConnector activation_;
  LoopbackKvConnector kv_;
  test::TokenReceiver gateway_{"gateway"};
  ModelDimensions dimensions_;
  std::map<std::string, std::unique_ptr<Node>> nodes_;
};

// Goal: at perturbation 0 the engines add nothing to the devices' time.
// Method: one sequence, so one micro-batch: attention, A2F, FFN, F2A, layer after layer. Every
// device second of both ledgers is then known from the cost model.
TEST_F(EmulatedEngine, AfdStepTakesWhatTheCostModelSaysAndTheLedgerKnowsWhere) {
  const cost::CostTable attention = Table("vera-rubin", "llama-3-8b");
  const cost::CostTable ffn = Table("groq3-lpx-rack", "llama-3-8b");
  Node& a = Add("A", {Stage::kPrefill, Stage::kAttention}, attention);
  Node& f = Add("F", {Stage::kFfn}, ffn);
  Start();
  SetGroup(a, {"F"});
  constexpr uint32_t kTokens = 12;
  const std::vector<TokenId> prompt = {1, 2, 3, 4, 5, 6, 7};
  Generate(a, prompt, kTokens);

  const uint32_t layers = dimensions_.layers;
  const cost::LinkSpeed link = attention.link().With(ffn.link());
  const model::ModelShape& shape = attention.shape();
  double busy_a = 0, busy_f = 0, links = 0;
  for (uint32_t token = 0; token < kTokens; token++) {
    const auto rows = cost::AttentionRows::Even(shape, 1, prompt.size() + token);
    busy_a += (attention.Embed(1) + attention.Head(1)).seconds();
    for (uint32_t layer = 0; layer < layers; layer++) {
      busy_a += attention.AttentionLayer(layer, rows).seconds();
      busy_f += ffn.FfnLayer({}, layer, 1).seconds();
      links += link.Transfer(cost::A2fBytes(shape, attention.precision(), layer, 1)).seconds() +
               link.Transfer(cost::F2aBytes(shape, attention.precision(), 1)).seconds();
    }
  }
  const ledger::LedgerSnapshot books_a = Books(a), books_f = Books(f);
  const auto attention_stage = ledger::LedgerStage::kAttention;
  EXPECT_NEAR(Seconds(books_a, LedgerState::kBusy, std::nullopt, attention_stage), busy_a,
              0.001 * busy_a);
  EXPECT_NEAR(Seconds(books_f, LedgerState::kBusy), busy_f, 0.001 * busy_f);
  // What A waits is F's compute and the links, to within a part in a hundred; F never queues.
  EXPECT_NEAR(Seconds(books_a, LedgerState::kStall, Cause::kPeerCompute), busy_f, 0.01 * busy_f);
  EXPECT_NEAR(Seconds(books_a, LedgerState::kStall, Cause::kHandoff), links, 0.01 * links);
  EXPECT_NEAR(Seconds(books_a, LedgerState::kStall, Cause::kPeerQueue), 0, 0.01 * busy_f);
  // While A computes F has nothing to do, though its group has a live sequence. Between two steps F
  // cannot know that yet. TODO(issue 5): the attention worker tells when its last sequence has
  // ended.
  const double between = kTokens * (attention.Embed(1) + attention.Head(1)).seconds();
  const double starved = Seconds(books_f, LedgerState::kIdle, Cause::kStarved);
  EXPECT_LT(starved, busy_a + links - between);
  EXPECT_GT(starved, (busy_a + links - between) * (layers - 1) / layers * 0.99);
  for (const ledger::LedgerSnapshot* books : {&books_a, &books_f})
    EXPECT_NEAR(Sum(*books), books->elapsed.seconds(), 0.001 * books->elapsed.seconds());
}

// Goal: the trace and the ledger tell one story, and a hand-off's two ends differ by its links.
// Method: the same run; every span of both devices, summed by kind in the devices' seconds.
TEST_F(EmulatedEngine, TheTraceSaysWhatTheLedgerSays) {
  const cost::CostTable attention = Table("vera-rubin", "llama-3-8b");
  const cost::CostTable ffn = Table("groq3-lpx-rack", "llama-3-8b");
  Node& a = Add("A", {Stage::kPrefill, Stage::kAttention}, attention);
  Node& f = Add("F", {Stage::kFfn}, ffn);
  Start();
  SetGroup(a, {"F"});
  constexpr uint32_t kTokens = 12;
  Generate(a, {1, 2, 3, 4, 5, 6, 7}, kTokens);
  const ledger::LedgerSnapshot books_a = Books(a), books_f = Books(f);

  SpanSums sums_a(a.core->trace()), sums_f(f.core->trace());
  const uint64_t calls = uint64_t{dimensions_.layers} * kTokens;
  EXPECT_EQ(sums_a.count(SpanKind::kStep), kTokens);
  EXPECT_EQ(sums_a.count(SpanKind::kEmbed), kTokens);
  EXPECT_EQ(sums_a.count(SpanKind::kHead), kTokens);
  EXPECT_EQ(sums_a.count(SpanKind::kPrefill), dimensions_.layers);
  EXPECT_EQ(sums_a.count(SpanKind::kAttention), calls);
  EXPECT_EQ(sums_a.count(SpanKind::kA2f), calls);
  EXPECT_EQ(sums_f.count(SpanKind::kFfn), calls);
  EXPECT_EQ(sums_f.count(SpanKind::kServed), calls);

  const auto busy = [&](const ledger::LedgerSnapshot& books, ledger::LedgerStage stage) {
    return Seconds(books, LedgerState::kBusy, std::nullopt, stage);
  };
  EXPECT_NEAR(sums_a.seconds(SpanKind::kPrefill), busy(books_a, ledger::LedgerStage::kPrefill),
              1e-6);
  EXPECT_NEAR(sums_a.seconds(SpanKind::kEmbed) + sums_a.seconds(SpanKind::kAttention) +
                  sums_a.seconds(SpanKind::kHead),
              busy(books_a, ledger::LedgerStage::kAttention), 1e-6);
  EXPECT_NEAR(sums_f.seconds(SpanKind::kFfn), busy(books_f, ledger::LedgerStage::kFfn), 1e-6);
  // The ledger splits a wait for a reply by its causes, the trace does not.
  EXPECT_NEAR(sums_a.seconds(Cause::kHandoff), Seconds(books_a, LedgerState::kStall), 1e-6);
  EXPECT_NEAR(sums_f.seconds(Cause::kStarved),
              Seconds(books_f, LedgerState::kIdle, Cause::kStarved), 1e-6);
  EXPECT_NEAR(sums_a.seconds(SpanKind::kA2f) - sums_f.seconds(SpanKind::kServed),
              Seconds(books_a, LedgerState::kStall, Cause::kHandoff), 1e-6);
  EXPECT_EQ(a.core->trace().Peers(0), std::vector<std::string>{"F"});
  EXPECT_EQ(f.core->trace().Peers(0), std::vector<std::string>{"A"});
  // The wait that they are in is not over.
  for (const Node* node : {&a, &f}) {
    const std::optional<Span> open = node->core->OpenWait();
    ASSERT_TRUE(open.has_value());
    EXPECT_EQ(open->cause, Cause::kNoWork);
    EXPECT_GT(open->end, open->begin);
  }
}

// Goal: a device that was idle starts where the machine's clock is, not where its last work ended.
// Method: the second sequence's work, from the moment at which it is asked for.
TEST_F(EmulatedEngine, WorkAfterAnIdleTimeStartsNow) {
  const cost::CostTable costs = Table("groq3-lpx-rack", "llama-3-8b");
  Node& w = Add("W", {Stage::kPrefill, Stage::kAttention, Stage::kFfn}, costs);
  Start();
  Generate(w, {1, 2, 3}, 2, "first");
  const double busy_before = Seconds(Books(w), LedgerState::kBusy);
  const Instant asked = time_.Now();
  Generate(w, {1, 2, 3}, 4, "second");
  const double busy = Seconds(Books(w), LedgerState::kBusy) - busy_before;
  EXPECT_GT(busy, 0);
  EXPECT_GE((time_.Now() - asked).seconds(), busy * kTimeScale);
  EXPECT_GE((w.backend->timeline()->Now() - asked).seconds(), busy * kTimeScale * 0.999999);
}

}  // namespace
}  // namespace tandem
