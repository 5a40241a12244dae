#include "tests/fakes/token_receiver.h"

#include <algorithm>
#include <utility>

#include "workers/connector/own_copy.h"

namespace tandem::test {

class TokenReceiver::Sink final : public TokenSink {
 public:
  Sink(TokenReceiver& gateway, TokenDoor& door, bool acknowledge)
      : gateway_(gateway), door_(door), acknowledge_(acknowledge) {}
  void Send(const step::OutboxMessage& message, const std::vector<SequenceCost>& costs) override {
    EXPECT_GT(message.step, last_step_) << "messages of one stream come in order";
    last_step_ = message.step;
    gateway_.OnMessage(message, costs);
    if (acknowledge_) door_.Acknowledge(gateway_.id(), message.step);
  }
  void Close(const absl::Status& status) override { gateway_.closed_.Set(OwnCopy(status)); }

 private:
  TokenReceiver& gateway_;
  TokenDoor& door_;
  const bool acknowledge_;
  uint64_t last_step_ = 0;  // the device's thread's
};

std::shared_ptr<TokenSink> TokenReceiver::Attach(TokenDoor& door, bool acknowledge) {
  std::vector<step::ResumePoint> resume;
  {
    MutexLock lock(mu_);
    for (const auto& [sequence, received] : sequences_) {
      if (!received.end.has_value())
        resume.push_back({sequence, static_cast<uint32_t>(received.tokens.size())});
    }
  }
  auto sink = std::make_shared<Sink>(*this, door, acknowledge);
  door.Attach(id_, std::move(resume), sink);
  return sink;
}

absl::Status TokenReceiver::WaitForClose() {
  return closed_.Wait().value_or(absl::DeadlineExceededError("not closed"));
}

void TokenReceiver::OnMessage(const step::OutboxMessage& message,
                              const std::vector<SequenceCost>& costs) {
  MutexLock lock(mu_);
  last_step_ = std::max(last_step_, message.step);
  EXPECT_EQ(costs.size(), message.emits.size());
  uint32_t with_token = 0;
  for (size_t i = 0; i < message.emits.size(); i++) {
    const step::Emit& emit = message.emits[i];
    EXPECT_EQ(emit.gateway, id_);
    ReceivedSequence& sequence = sequences_[emit.sequence];
    EXPECT_FALSE(sequence.end.has_value()) << ToString(emit.sequence) << " goes on after its end";
    if (emit.token.has_value()) {
      with_token++;
      if (emit.position < sequence.tokens.size()) {
        sequence.repeated++;
        sequence.consistent &= sequence.tokens[emit.position] == emit.token->id;
      } else {
        sequence.consistent &= emit.position == sequence.tokens.size();
        sequence.tokens.push_back(emit.token->id);
      }
    }
    if (emit.end.has_value()) {
      sequence.end = SequenceEnd{emit.end->reason, OwnCopy(emit.end->status)};
      sequence.cost = costs[i];
    }
  }
  if (with_token > 1) shared_messages_++;
  changed_.NotifyAll();
}

template <typename Condition>
ReceivedSequence TokenReceiver::WaitUntil(const SequenceKey& key, const char* what,
                                          Condition condition) {
  MutexLock lock(mu_);
  while (!condition(sequences_[key])) {
    if (changed_.WaitFor(lock, kPatience)) continue;
    ADD_FAILURE() << ToString(key) << ": no " << what << "; it has "
                  << sequences_[key].tokens.size() << " tokens";
    break;
  }
  return sequences_[key];
}

ReceivedSequence TokenReceiver::WaitForEnd(const SequenceKey& sequence) {
  return WaitUntil(sequence, "end",
                   [](const ReceivedSequence& received) { return received.end.has_value(); });
}

ReceivedSequence TokenReceiver::WaitForTokens(const SequenceKey& sequence, size_t count) {
  return WaitUntil(sequence, "more tokens", [count](const ReceivedSequence& received) {
    return received.tokens.size() >= count;
  });
}

ReceivedSequence TokenReceiver::Received(const SequenceKey& sequence) {
  MutexLock lock(mu_);
  return sequences_[sequence];
}

uint64_t TokenReceiver::last_step() {
  MutexLock lock(mu_);
  return last_step_;
}

uint32_t TokenReceiver::shared_messages() {
  MutexLock lock(mu_);
  return shared_messages_;
}

void RecordingListener::OnPrefilled(const SequenceKey& sequence) {
  MutexLock lock(mu_);
  prefilled_[sequence]++;
  changed_.NotifyAll();
}

void RecordingListener::OnEnded(const SequenceKey& sequence, const SequenceEnd& end) {
  MutexLock lock(mu_);
  EXPECT_TRUE(ended_.emplace(sequence, SequenceEnd{end.reason, OwnCopy(end.status)}).second)
      << ToString(sequence) << " ended twice";
  changed_.NotifyAll();
}

void RecordingListener::OnShardLost(const WorkerId& ffn_worker, uint64_t /*shard_epoch*/,
                                    const std::string& /*message*/) {
  MutexLock lock(mu_);
  lost_[ffn_worker.value()]++;
  changed_.NotifyAll();
}

SequenceEnd RecordingListener::WaitForEnd(const SequenceKey& sequence) {
  MutexLock lock(mu_);
  while (!ended_.contains(sequence)) {
    if (changed_.WaitFor(lock, kPatience)) continue;
    ADD_FAILURE() << ToString(sequence) << ": the router was told no end";
    return {};
  }
  return ended_[sequence];
}

bool RecordingListener::Prefilled(const SequenceKey& sequence) {
  MutexLock lock(mu_);
  return prefilled_.contains(sequence);
}

uint32_t RecordingListener::shards_lost(const std::string& ffn_worker) {
  MutexLock lock(mu_);
  return lost_[ffn_worker];
}

}  // namespace tandem::test
