#include "tests/fakes/emulated_world.h"

#include <cstdlib>
#include <utility>

#include "services/runtime/catalog_files.h"
#include "workers/backend/synthetic/hash_chain.h"
#include "workers/backend/synthetic/synthetic_backend.h"

namespace tandem::test {
namespace {

const model::Catalog& TheCatalog() {
  static const model::Catalog* const catalog = [] {
    auto read =
        LoadCatalog({std::string(std::getenv("TANDEM_SOURCE_DIR")) + "/scheduler/model/catalog"});
    EXPECT_TRUE(read.ok()) << read.status();
    return new model::Catalog(*std::move(read));
  }();
  return *catalog;
}

Sampling Greedy() {
  Sampling greedy;
  greedy.temperature = 0;
  return greedy;
}

}  // namespace

EmulatedWorld::~EmulatedWorld() {
  for (auto& [name, node] : nodes_) node->core->Stop();
}

cost::CostTable EmulatedWorld::Table(const std::string& device_name, const std::string& shape,
                                     const std::function<void(model::Device&)>& change) {
  model::Device device = *TheCatalog().FindDevice(device_name);
  if (change) change(device);
  cost::CostOptions options;
  options.precision.weights = model::Dtype::kFp8;
  auto table = cost::CostTable::Create(device, *TheCatalog().FindModel(shape), options);
  EXPECT_TRUE(table.ok()) << table.status();
  return *std::move(table);
}

EmulatedNode& EmulatedWorld::Add(const std::string& name, std::set<Stage> stages,
                                 const cost::CostTable& table, const Tune& tune) {
  SyntheticOptions numbers;
  numbers.stages = stages;
  numbers.dimensions = {static_cast<uint32_t>(table.shape().layers), 4, 1, 1, 1000, 4096};
  const bool keeps_kv = stages != std::set<Stage>{Stage::kFfn};
  numbers.kv_blocks = keeps_kv ? 1024 : 0;
  numbers.block_tokens = kBlockTokens;
  dimensions_ = numbers.dimensions;
  EmulatedOptions options{.stages = stages,
                          .shard = {},
                          .kv_tokens = numbers.kv_blocks * kBlockTokens,
                          .time_scale = time_scale_};
  auto node = std::make_unique<EmulatedNode>();
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
  config.micro_batches = 1;
  if (tune) tune(config);
  node->core =
      std::make_unique<WorkerCore>(config, *node->backend, time_, activation_, kv_, node->listener);
  activation_.Add(config.worker, node->core->ffn());
  kv_.Add(config.worker, node->core->kv());
  return *(nodes_[name] = std::move(node));
}

void EmulatedWorld::Start() {
  for (auto& [name, node] : nodes_) {
    node->core->Start();
    if (node->core->config().stages.contains(Stage::kAttention))
      gateway_.Attach(node->core->tokens());
  }
}

void EmulatedWorld::SetGroup(EmulatedNode& node, const std::vector<std::string>& names) {
  std::vector<FfnEndpoint> holders;
  for (const std::string& name : names) holders.push_back({WorkerId(name), "loopback", 1});
  Promise<absl::Status> answer;
  node.core->commands().SetGroup(1, 1, std::move(holders),
                                 [&](absl::Status status) { answer.Set(std::move(status)); });
  ASSERT_EQ(answer.Wait(), absl::OkStatus());
  // The answer does not wait for the streams: each holder has been asked for one, and grants it
  // before what is asked of it now.
  for (const std::string& name : names) Sync(*nodes_.at(name));
  Sync(node);
}

void EmulatedWorld::Begin(EmulatedNode& node, const std::vector<TokenId>& prompt, uint32_t tokens,
                          const std::string& name, EmulatedNode* prefill) {
  step::DecodeRequest request;
  request.reservation = ReservationId(name);
  request.gateway = gateway_.id();
  request.request = RequestId(name);
  request.choices = {ChoiceStart{}};
  request.prompt_ids = prompt;
  request.sampling = Greedy();
  request.stop.max_tokens = tokens;
  request.local_prefill = prefill == nullptr;
  Promise<absl::Status> answer;
  node.core->commands().Decode(std::move(request),
                               [&](absl::Status status) { answer.Set(std::move(status)); });
  ASSERT_EQ(answer.Wait(), absl::OkStatus());
  if (prefill == nullptr) return;
  PrefillOrder order;
  order.job.reservation = ReservationId(name);
  order.job.sequence = {RequestId(name), 0, 0};
  order.job.ids = prompt;
  order.attention_worker = node.core->config().worker;
  order.attention_address = "loopback";
  Promise<absl::Status> ordered;
  prefill->core->commands().Prefill(std::move(order),
                                    [&](absl::Status status) { ordered.Set(std::move(status)); });
  ASSERT_EQ(ordered.Wait(), absl::OkStatus());
}

void EmulatedWorld::ExpectExact(const std::vector<TokenId>& prompt, uint32_t tokens,
                                const std::string& name) {
  const ReceivedSequence received = gateway_.WaitForEnd({RequestId(name), 0, 0});
  ASSERT_TRUE(received.end.has_value());
  EXPECT_EQ(received.end->reason, EndReason::kLength) << received.end->status;
  EXPECT_EQ(received.tokens,
            synthetic::ReferenceTokens(dimensions_, kBlockTokens, prompt, tokens, Greedy()));
}

void EmulatedWorld::Sync(EmulatedNode& node) {
  Promise<absl::Status> answer;
  node.core->commands().Release(ReservationId("none"), {}, EndReason::kCancelled,
                                [&](absl::Status status) { answer.Set(std::move(status)); });
  EXPECT_EQ(answer.Wait(), absl::OkStatus());
}

ledger::LedgerSnapshot EmulatedWorld::Books(EmulatedNode& node) {
  const auto has_no_work = [&] {
    const std::optional<Span> wait = node.core->OpenWait();
    return wait.has_value() && wait->cause == ledger::Cause::kNoWork;
  };
  const Instant give_up = time_.Now() + Duration::Seconds(kPatience.count());
  do {
    Sync(node);
  } while (!has_no_work() && time_.Now() < give_up);
  EXPECT_TRUE(has_no_work()) << node.core->config().worker.value() << " is still at work";
  return node.core->Report().ledger;
}

double SecondsIn(const ledger::LedgerSnapshot& books, ledger::LedgerState state,
                 std::optional<ledger::Cause> cause, std::optional<ledger::LedgerStage> stage) {
  double sum = 0;
  for (const ledger::LedgerCell& cell : books.cells) {
    if (cell.state != state || (cause && cell.cause != *cause) || (stage && cell.stage != *stage))
      continue;
    sum += cell.time.seconds();
  }
  return sum;
}

double SecondsInAll(const ledger::LedgerSnapshot& books) {
  double sum = 0;
  for (const ledger::LedgerCell& cell : books.cells) sum += cell.time.seconds();
  return sum;
}

}  // namespace tandem::test
