#pragma once

// A gateway's side of token streams, and a router's ear: what they were told, to wait for and to
// look at.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "tests/fakes/latch.h"
#include "workers/connector/ports.h"

namespace tandem::test {

struct ReceivedSequence {
  std::vector<TokenId> tokens;
  std::optional<SequenceEnd> end;
  SequenceCost cost;
  uint32_t repeated = 0;   // tokens that came again
  bool consistent = true;  // no gap, and no repeated token differed
};

// Safe from any thread. Outlives its sinks.
class TokenReceiver {
 public:
  explicit TokenReceiver(std::string id) : id_(std::move(id)) {}
  const GatewayId& id() const { return id_; }

  // A new stream to `door`, which resumes with what was received. `acknowledge`: each message at
  // once.
  std::shared_ptr<TokenSink> Attach(TokenDoor& door, bool acknowledge = true);
  // What its stream was closed with; waits.
  absl::Status WaitForClose();

  ReceivedSequence WaitForEnd(const SequenceKey& sequence);
  ReceivedSequence WaitForTokens(const SequenceKey& sequence, size_t count);
  ReceivedSequence Received(const SequenceKey& sequence);
  uint64_t last_step();
  // Messages that carried tokens of more than one sequence.
  uint32_t shared_messages();

 private:
  class Sink;
  void OnMessage(const step::OutboxMessage& message, const std::vector<SequenceCost>& costs)
      TANDEM_EXCLUDES(mu_);
  template <typename Condition>
  ReceivedSequence WaitUntil(const SequenceKey& sequence, const char* what, Condition condition)
      TANDEM_EXCLUDES(mu_);

  const GatewayId id_;
  Promise<absl::Status> closed_;
  Mutex mu_;
  CondVar changed_;
  std::map<SequenceKey, ReceivedSequence> sequences_ TANDEM_GUARDED_BY(mu_);
  uint64_t last_step_ TANDEM_GUARDED_BY(mu_) = 0;
  uint32_t shared_messages_ TANDEM_GUARDED_BY(mu_) = 0;
};

class RecordingListener final : public WorkerListener {
 public:
  void OnPrefilled(const SequenceKey& sequence) override;
  void OnEnded(const SequenceKey& sequence, const SequenceEnd& end) override;
  void OnShardLost(const WorkerId& ffn_worker, uint64_t shard_epoch,
                   const std::string& message) override;

  SequenceEnd WaitForEnd(const SequenceKey& sequence);
  bool Prefilled(const SequenceKey& sequence);
  uint32_t shards_lost(const std::string& ffn_worker);

 private:
  Mutex mu_;
  CondVar changed_;
  std::map<SequenceKey, uint32_t> prefilled_ TANDEM_GUARDED_BY(mu_);
  std::map<SequenceKey, SequenceEnd> ended_ TANDEM_GUARDED_BY(mu_);
  std::map<std::string, uint32_t> lost_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::test
