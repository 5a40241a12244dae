// A worker without a device, for tests/bench/gateway_bench.py: it registers as a colocated worker,
// admits every sequence and gives each one token every --interval-us, a whole step of a gateway in
// one message, as a decode engine would.

#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "services/runtime/daemon.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/log.h"
#include "services/runtime/mutex.h"
#include "services/runtime/real_time.h"
#include "workers/rpc/registry_client.h"
#include "workers/rpc/token_service.h"

namespace tandem {
namespace {

constexpr TokenId kFirstToken = 1000;  // ordinary words of SmolLM2's vocabulary follow
constexpr uint32_t kTokens = 500;

class PacedDoor final : public CommandDoor, public TokenDoor {
 public:
  PacedDoor(TimeSource& time, Duration interval) : time_(time), interval_(interval) {
    Arm(time.Now() + interval);
  }

  RegistryClient* registry = nullptr;  // set before the first command

  void Decode(step::DecodeRequest request, Answer answer) override {
    answer(absl::OkStatus());
    std::vector<SequenceKey> started;
    {
      MutexLock lock(mu_);
      for (const ChoiceStart& choice : request.choices) {
        const SequenceKey key{request.request, choice.choice, choice.attempt};
        live_[key] = {request.gateway, static_cast<uint32_t>(choice.emitted_ids.size()),
                      request.stop.max_tokens};
        started.push_back(key);
      }
    }
    for (const SequenceKey& key : started) registry->OnPrefilled(key);
  }
  void Prefill(PrefillOrder, Answer answer) override {
    answer(absl::FailedPreconditionError("prefill is local"));
  }
  void Release(const ReservationId&, const std::vector<SequenceKey>& sequences, EndReason reason,
               Answer answer) override {
    answer(absl::OkStatus());
    for (const SequenceKey& key : sequences) End(key, reason);
  }
  void SetGroup(uint64_t, uint64_t, std::vector<FfnEndpoint>, Answer answer) override {
    answer(absl::OkStatus());
  }
  void Drain(Answer answer) override { answer(absl::OkStatus()); }

  void Attach(const GatewayId& gateway, std::vector<step::ResumePoint>,
              std::shared_ptr<TokenSink> sink) override {
    MutexLock lock(mu_);
    sinks_[gateway] = {std::move(sink), 0};
  }
  void Detach(const GatewayId& gateway, const TokenSink* sink) override {
    MutexLock lock(mu_);
    const auto found = sinks_.find(gateway);
    if (found != sinks_.end() && found->second.sink.get() == sink) sinks_.erase(found);
  }
  void Acknowledge(const GatewayId&, uint64_t) override {}
  void Stop(const SequenceKey& sequence, uint32_t, EndReason reason) override {
    End(sequence, reason);
  }

  WorkerReport Report() const {
    MutexLock lock(mu_);
    WorkerReport report;
    report.load.kv_blocks_free = 1 << 16;
    report.load.sequences = static_cast<uint32_t>(live_.size());
    for (const auto& [key, sequence] : live_) report.live.push_back(key);
    return report;
  }

 private:
  struct Sequence {
    GatewayId gateway;
    uint32_t position = 0, max_tokens = 0;
  };
  struct Stream {
    std::shared_ptr<TokenSink> sink;
    uint64_t step = 0;
  };

  void Arm(Instant when) {
    time_.CallAt(when, [this, when] {
      Tick();
      Arm(when + interval_);
    });
  }
  void Tick() {
    std::vector<std::pair<SequenceKey, SequenceEnd>> ended;
    {
      MutexLock lock(mu_);
      std::map<GatewayId, std::vector<step::Emit>> steps;
      for (auto& [key, sequence] : live_) {
        if (!sinks_.contains(sequence.gateway)) continue;
        step::Emit emit;
        emit.gateway = sequence.gateway;
        emit.sequence = key;
        emit.position = sequence.position;
        emit.token = step::SampledToken{
            .id = kFirstToken + sequence.position % kTokens, .logprob = 0, .top = {}};
        if (++sequence.position >= sequence.max_tokens) {
          emit.end = SequenceEnd{EndReason::kLength, absl::OkStatus()};
          ended.emplace_back(key, *emit.end);
        }
        steps[sequence.gateway].push_back(std::move(emit));
      }
      for (auto& [gateway, emits] : steps) {
        Stream& stream = sinks_.at(gateway);
        const std::vector<SequenceCost> costs(emits.size());
        stream.sink->Send({++stream.step, std::move(emits)}, costs);
      }
      for (const auto& [key, end] : ended) live_.erase(key);
    }
    for (const auto& [key, end] : ended) registry->OnEnded(key, end);
  }
  void End(const SequenceKey& key, EndReason reason) {
    {
      MutexLock lock(mu_);
      if (live_.erase(key) == 0) return;
    }
    registry->OnEnded(key, {reason, absl::OkStatus()});
  }

  TimeSource& time_;
  const Duration interval_;
  mutable Mutex mu_;
  std::map<SequenceKey, Sequence> live_ TANDEM_GUARDED_BY(mu_);
  std::map<GatewayId, Stream> sinks_ TANDEM_GUARDED_BY(mu_);
};

WorkerDescription Describe(const std::string& model, const std::string& address) {
  WorkerDescription worker;
  worker.id = WorkerId("paced-0");
  worker.incarnation = static_cast<uint64_t>(getpid());
  worker.pool = "paced";
  worker.model = model;
  worker.stages = {Stage::kPrefill, Stage::kAttention, Stage::kFfn};
  worker.numerics = {"paced", "paced", "paced"};
  worker.address = address;
  worker.capacity = {.kv_blocks = 1 << 16,
                     .block_tokens = 16,
                     .max_sequences = 1024,
                     .prefill_slots = 1024,
                     .max_handoff_rows = 1024};
  worker.dimensions = {.layers = 1,
                       .hidden = 1,
                       .kv_heads = 1,
                       .head_dim = 1,
                       .vocabulary = 49152,
                       .context_tokens = 8192};
  worker.pid = getpid();
  return worker;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  using namespace tandem;
  BlockStopSignals();
  std::string listen = "127.0.0.1:0", router = "127.0.0.1:9000", model = "paced";
  int64_t interval_us = 10'000;
  CLI::App app{"paced_worker: a worker without a device, one token a sequence every --interval-us"};
  app.add_option("--listen", listen);
  app.add_option("--router", router);
  app.add_option("--model-name", model);
  app.add_option("--interval-us", interval_us)->check(CLI::Range(int64_t{10}, int64_t{60'000'000}));
  CLI11_PARSE(app, argc, argv);
  InitLog({.daemon = "paced_worker"});
  RealTimeSource time;
  PacedDoor door(time, Duration::Microseconds(interval_us));
  TokenService tokens(door);
  auto server = StartGrpcServer(listen, {&tokens}, LinkSecurity());
  if (!server.ok()) {
    std::fprintf(stderr, "paced_worker: %s\n", std::string(server.status().message()).c_str());
    return 1;
  }
  RegistryClient registry({.routers = {router}},
                          Describe(model, "127.0.0.1:" + std::to_string(server->port)), time,
                          Random(1));
  door.registry = &registry;
  registry.Start(door, [&door] { return door.Report(); });
  WaitForStopSignal();
  registry.Stop();
  _exit(0);  // the clock still ticks on the door: nothing here is worth an orderly end
}
