#pragma once

// Emulated devices behind the real engines, in one process over loopback, and their books.

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "scheduler/cost/cost_table.h"
#include "services/runtime/real_time.h"
#include "tests/fakes/token_receiver.h"
#include "workers/backend/emulated/emulated_backend.h"
#include "workers/connector/activation/loopback.h"
#include "workers/connector/kv/loopback.h"
#include "workers/engine/worker_core.h"

namespace tandem::test {

struct EmulatedNode {
  std::unique_ptr<EmulatedBackend> backend;
  RecordingListener listener;
  std::unique_ptr<WorkerCore> core;
};

class EmulatedWorld {
 public:
  static constexpr uint32_t kBlockTokens = 16;
  static constexpr double kTimeScale = 20;  // several engines and a sanitizer must keep up

  explicit EmulatedWorld(double time_scale = kTimeScale) : time_scale_(time_scale) {}
  ~EmulatedWorld();

  // The table of a device and a model of the catalog, fp8; `change` makes another device of it.
  static cost::CostTable Table(const std::string& device, const std::string& shape,
                               const std::function<void(model::Device&)>& change = {});

  using Tune = std::function<void(EngineConfig&)>;
  // Before Start. One micro-batch a step, unless `tune` says otherwise.
  EmulatedNode& Add(const std::string& name, std::set<Stage> stages, const cost::CostTable& table,
                    const Tune& tune = {});
  void Start();
  // Its streams to the holders are open when it returns: a sequence that begins then is known
  // there.
  void SetGroup(EmulatedNode& node, const std::vector<std::string>& names);
  EmulatedNode& node(const std::string& name) { return *nodes_.at(name); }
  const ModelDimensions& dimensions() const { return dimensions_; }

  // A greedy sequence; it runs on `node` once its prompt is prefilled there, or by `prefill`.
  void Begin(EmulatedNode& node, const std::vector<TokenId>& prompt, uint32_t tokens,
             const std::string& name, EmulatedNode* prefill = nullptr);
  void WaitForTokens(const std::string& name, size_t count) {
    gateway_.WaitForTokens({RequestId(name), 0, 0}, count);
  }
  // Waits for its end, and compares its tokens with the hash chain's.
  void ExpectExact(const std::vector<TokenId>& prompt, uint32_t tokens, const std::string& name);
  void Generate(EmulatedNode& node, const std::vector<TokenId>& prompt, uint32_t tokens,
                const std::string& name = "r", EmulatedNode* prefill = nullptr) {
    Begin(node, prompt, tokens, name, prefill);
    ExpectExact(prompt, tokens, name);
  }

  // The node's ledger once it has nothing to do and knows it: no sequence is here, and word that
  // none lives elsewhere has come over the link.
  ledger::LedgerSnapshot Books(EmulatedNode& node);

 private:
  void Sync(EmulatedNode& node);  // what was asked before is done

  const double time_scale_;
  RealTimeSource time_;
  LoopbackActivationConnector activation_;
  LoopbackKvConnector kv_;
  TokenReceiver gateway_{"gateway"};
  ModelDimensions dimensions_;
  std::map<std::string, std::unique_ptr<EmulatedNode>> nodes_;
};

// Device seconds of a state and its causes; all causes without any named.
double SecondsIn(const ledger::LedgerSnapshot& books, ledger::LedgerState state,
                 std::optional<ledger::Cause> cause = std::nullopt,
                 std::optional<ledger::LedgerStage> stage = std::nullopt);
double SecondsInAll(const ledger::LedgerSnapshot& books);

}  // namespace tandem::test
