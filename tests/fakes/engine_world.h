#pragma once

// Worker engines of any topology in one process, over loopback connectors and fake backends, on a
// clock that the test moves.
//
//   EngineWorld world;
//   EngineNode& a = world.Add("A", {Stage::kAttention});
//   EngineNode& f = world.Add("F", {Stage::kFfn});
//   world.Start();
//   world.SetGroup(a, {"F"});
//   world.Decode(a, world.Ask("r", {1, 2, 3}, /*max_tokens=*/5));
//   world.gateway().WaitForEnd(Key("r"));

#include <functional>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "tests/fakes/fake_backend.h"
#include "tests/fakes/faulty_connectors.h"
#include "tests/fakes/manual_time.h"
#include "tests/fakes/token_receiver.h"
#include "workers/connector/activation/loopback.h"
#include "workers/connector/kv/loopback.h"
#include "workers/engine/worker_core.h"

namespace tandem::test {

struct EngineNode {
  std::unique_ptr<FakeBackend> backend;
  RecordingListener listener;
  std::unique_ptr<WorkerCore> core;

  WorkerId id() const { return core->config().worker; }
};

// The node waits at its n-th call of a kind from now until `go` opens; `there` opens when it is
// there. The latches outlive the node.
void HoldAt(EngineNode& node, FakeCallKind kind, uint64_t nth, Latch& there, Latch& go);

inline SequenceKey Key(const std::string& request, uint32_t choice = 0, uint32_t attempt = 0) {
  return {RequestId(request), choice, attempt};
}

class EngineWorld {
 public:
  using Tune = std::function<void(EngineConfig&, FakeOptions&)>;

  EngineWorld();
  ~EngineWorld();  // stops all

  EngineNode& Add(const std::string& name, std::set<Stage> stages, const Tune& tune = {});
  // Starts every node, and attaches the gateway to those that decode.
  void Start();

  // A command's answer.
  absl::Status Decode(EngineNode& node, step::DecodeRequest request);
  absl::Status Prefill(EngineNode& node, const step::DecodeRequest& request,
                       const EngineNode& attention);
  absl::Status Release(EngineNode& node, const std::string& request, EndReason reason);
  // Each with the shard that it holds.
  absl::Status SetGroup(EngineNode& node, const std::vector<std::string>& holders,
                        uint64_t version = 0, uint64_t shard_epoch = 1);
  EngineNode& Node(const std::string& name);  // one that was added
  // Its FFN has computed so many calls and holds so many rows that wait, and its device has noted
  // that it does.
  void WaitForQueuedRows(EngineNode& node, uint64_t computed_calls, uint64_t rows);
  // All events that were posted before are carried out, and the report tells of them.
  void Sync(EngineNode& node);
  WorkerReport Report(EngineNode& node);  // after Sync; not of a node that a hook holds

  // One choice, greedy, of request and reservation `name`, for the world's gateway.
  step::DecodeRequest Ask(const std::string& name, std::vector<TokenId> prompt,
                          uint32_t max_tokens) const;
  // Decode, on another worker than `prefill` when that is given.
  absl::Status Generate(EngineNode& attention, EngineNode* prefill, step::DecodeRequest request);

  // What the sequence received is what it must be, to the last token of `max_tokens`.
  void ExpectExact(const step::DecodeRequest& request, uint32_t choice = 0);
  // No sequence, no prompt and every block free.
  void ExpectEmpty(EngineNode& node);

  ManualTime& time() { return time_; }
  TokenReceiver& gateway() { return gateway_; }
  FaultyActivationConnector& activation() { return activation_; }
  FaultyKvConnector& kv() { return kv_; }
  const ModelDimensions& model() const { return model_; }

 private:
  FfnShard ShardOf(const std::string& name) const;  // of a node that was not added: whole

  ManualTime time_;
  const ModelDimensions model_ = FakeOptions().dimensions;
  LoopbackActivationConnector loopback_activation_;
  LoopbackKvConnector loopback_kv_;
  FaultyActivationConnector activation_;
  FaultyKvConnector kv_;
  TokenReceiver gateway_;
  uint64_t group_version_ = 0;
  std::vector<std::unique_ptr<EngineNode>> nodes_;
};

}  // namespace tandem::test
