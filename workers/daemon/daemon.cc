#include "workers/daemon/daemon.h"

#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <utility>

#include "scheduler/base/status.h"
#include "services/runtime/daemon.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/link_security.h"
#include "services/runtime/log.h"
#include "services/runtime/mutex.h"
#include "services/runtime/real_time.h"
#include "workers/daemon/make_backend.h"
#include "workers/daemon/metrics.h"
#include "workers/engine/worker_core.h"
#include "workers/rpc/handoff_connector.h"
#include "workers/rpc/handoff_service.h"
#include "workers/rpc/kv_connector.h"
#include "workers/rpc/kv_service.h"
#include "workers/rpc/registry_client.h"
#include "workers/rpc/token_service.h"
#include "workers/rpc/trace_service.h"

namespace tandem {
namespace {

// Prompts that a prefill worker takes at once. It computes one after the other, so more would only
// reserve KV on the attention workers early; a few hide the router's round trip.
constexpr uint32_t kRemotePrefillSlots = 4;

uint64_t WallNanoseconds() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

EngineConfig MakeEngineConfig(const WorkerConfig& config, uint32_t kv_blocks) {
  EngineConfig engine;
  engine.worker = WorkerId(config.worker_id);
  engine.model = config.model_name;
  engine.stages = config.StageSet();
  engine.kv_blocks = kv_blocks;
  engine.block_tokens = config.block_tokens;
  engine.max_batch = config.max_batch;
  engine.max_micro_batches = config.max_micro_batches;
  engine.micro_batches = config.micro_batches;
  engine.chunk_tokens = config.chunk_tokens;
  engine.max_merge_wait = Duration::Microseconds(config.max_merge_wait_us);
  engine.shard_epoch = WallNanoseconds();
  return engine;
}

WorkerDescription Describe(const WorkerConfig& config, const EngineConfig& engine,
                           const BackendInfo& backend, const ledger::Price& price,
                           const std::string& address) {
  WorkerDescription worker;
  worker.id = engine.worker;
  worker.incarnation = WallNanoseconds();
  worker.pool = config.pool;
  worker.model = config.model_name;
  worker.stages = engine.stages;
  worker.memory_class = config.Memory();
  worker.numerics = backend.numerics;
  worker.address = address;
  worker.metrics_url = config.MetricsUrl(address);
  worker.capacity = {.kv_blocks = worker.Runs(Stage::kAttention) ? engine.kv_blocks : 0,
                     .block_tokens = engine.block_tokens,
                     .max_sequences = worker.Runs(Stage::kAttention) ? engine.max_sequences : 0,
                     .prefill_slots = worker.Runs(Stage::kAttention) ? engine.max_prefill_jobs
                                      : worker.Runs(Stage::kPrefill) ? kRemotePrefillSlots
                                                                     : 0,
                     .max_handoff_rows = worker.Runs(Stage::kFfn) ? engine.max_handoff_rows : 0};
  worker.shard_epoch = engine.shard_epoch;
  worker.shard = backend.shard;
  worker.dimensions = backend.dimensions;
  worker.weights_bytes = backend.attention_bytes + backend.ffn_bytes + backend.head_bytes;
  worker.device = backend.name;
  worker.time_scale = config.emulated() ? config.time_scale : 0;
  worker.model_shape = config.emulated() ? config.model_shape : "";
  worker.weights = config.emulated() ? config.weights : "";
  if (!config.emulated()) {
    worker.loaded = {backend.heads,           backend.ffn,       backend.tied_embeddings,
                     backend.attention_bytes, backend.ffn_bytes, backend.head_bytes,
                     backend.kv_row_bytes};
  }
  worker.dollars_per_hour = price.dollars_per_hour;
  worker.watts = price.watts;
  worker.pid = getpid();
  return worker;
}

// Refuses new work, waits until the sequences in hand have ended or `timeout` has passed.
void DrainCore(WorkerCore& core, RegistryClient& registry, Duration timeout) {
  struct Drained {
    Mutex mu;
    CondVar changed;
    bool done TANDEM_GUARDED_BY(mu) = false;
  };
  auto drained = std::make_shared<Drained>();
  core.commands().Drain([drained](const absl::Status&) {
    MutexLock lock(drained->mu);
    drained->done = true;
    drained->changed.NotifyAll();
  });
  registry.Beat();
  MutexLock lock(drained->mu);
  while (!drained->done) {
    if (!drained->changed.WaitFor(lock, std::chrono::nanoseconds(timeout.nanoseconds()))) break;
  }
  LogInfo(drained->done ? "drained" : "drain_timed_out");
}

std::string NotReadyReason(const RegistryClient& registry, const WorkerCore& core) {
  if (!registry.registered()) return registry.Problem();
  return core.Report().has_group ? "" : "no FFN worker's stream is open";
}

// The engine tells the registry client, which needs the bound addresses, so the servers come first.
struct ToRegistry final : WorkerListener {
  RegistryClient* registry = nullptr;  // set before the engine starts
  void OnPrefilled(const SequenceKey& key) override { registry->OnPrefilled(key); }
  void OnEnded(const SequenceKey& key, const SequenceEnd& end) override {
    registry->OnEnded(key, end);
  }
  void OnShardLost(const WorkerId& worker, uint64_t epoch, const std::string& why) override {
    registry->OnShardLost(worker, epoch, why);
  }
};

}  // namespace

absl::Status RunWorker(const WorkerConfig& config) {
  ASSIGN_OR_RETURN(const LinkSecurity security, LinkSecurity::Make(config.tls));
  RealTimeSource time;
  LogInfo("loading", {{"model", config.emulated() ? config.model_shape : config.model}});
  ASSIGN_OR_RETURN(const BuiltBackend built, MakeBackend(config, time));
  StageBackend& backend = *built.backend;
  const BackendInfo& info = backend.info();
  LogInfo("loaded", {{"backend", info.name},
                     {"attention_bytes", info.attention_bytes},
                     {"ffn_bytes", info.ffn_bytes},
                     {"ffn_shard", ToString(info.shard, info.dimensions.layers)},
                     {"head_bytes", info.head_bytes},
                     {"kv_tokens", uint64_t{built.kv_blocks} * config.block_tokens}});

  const Random random(WallNanoseconds() ^ static_cast<uint64_t>(getpid()));
  const EngineConfig engine = MakeEngineConfig(config, built.kv_blocks);
  HandoffConnector activation(time, random.Child("handoff"), {}, security);
  GrpcKvConnector kv(time, random.Child("kv"), {}, security);

  ToRegistry forward;
  WorkerCore core(engine, backend, time, activation, kv, forward);
  HandoffService handoff_service(core.ffn());
  KvService kv_service(core.kv());
  TokenService token_service(core.tokens());
  RealTimeSource trace_time;  // readers work on its thread, not on that of the engine's deadlines
  TraceService trace_service({.worker = config.worker_id,
                              .device = info.name,
                              .stages = engine.stages,
                              .time_scale = config.emulated() ? config.time_scale : 0,
                              .open_wait = [&core] { return core.OpenWait(); }},
                             core.trace(), trace_time);
  ASSIGN_OR_RETURN(
      GrpcServer server,
      StartGrpcServer(config.listen,
                      {&handoff_service, &kv_service, &token_service, &trace_service}, security));
  const std::string host = config.listen.substr(0, config.listen.rfind(':'));
  const std::string address =
      config.advertise.empty() ? absl::StrCat(host, ":", server.port) : config.advertise;

  const WorkerDescription description = Describe(config, engine, info, built.price, address);
  RegistryClient registry({.routers = config.routers, .security = security}, description, time,
                          random.Child("registry"));
  forward.registry = &registry;
  const std::shared_ptr<prometheus::Registry> metrics = MakeWorkerMetrics(
      description, info, time, core.opened(), backend.timeline(), [&core] { return core.Report(); },
      [&] {
        return StreamCounts{.kv_frames_malformed = kv_service.malformed_frames(),
                            .handoff_replies_mismatched = activation.mismatched_replies(),
                            .handoff_calls_malformed = handoff_service.malformed_calls(),
                            .registry_reconnects = registry.reconnects()};
      });
  security.Export(metrics, WorkerLabels(description));
  ASSIGN_OR_RETURN(auto metrics_server, ServeMetrics(config.metrics_listen, metrics));
  ASSIGN_OR_RETURN(auto health_server, ServeHealth(config.admin_listen,
                                                   [&] { return NotReadyReason(registry, core); }));

  core.Start();
  registry.Start(core.commands(), [&core] { return core.Report(); });
  LogInfo("serving", {{"worker", config.worker_id},
                      {"address", address},
                      {"pool", config.pool},
                      {"tls", security.tls()}});

  const int signal = WaitForStopSignal();
  LogInfo("stopping", {{"signal", signal}});
  DrainCore(core, registry, Duration::FromSeconds(config.drain_timeout_seconds));
  registry.Stop();
  core.Stop();
  server.server->Shutdown(std::chrono::system_clock::now() + std::chrono::seconds(1));
  return absl::OkStatus();
}

}  // namespace tandem
