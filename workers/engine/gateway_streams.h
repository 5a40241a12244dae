#pragma once

// The gateways of one attention worker: what each is owed (step::TokenOutbox), the stream that it
// is sent on, and how long a gateway without a stream is waited for.

#include <absl/status/status.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "scheduler/step/token_outbox.h"
#include "workers/connector/ports.h"
#include "workers/engine/context.h"

namespace tandem {

// Lives on the device's thread.
class GatewayStreams {
 public:
  explicit GatewayStreams(EngineContext& context) : context_(context) {}

  // A sequence of this gateway comes. Without a stream its lease starts. kResourceExhausted: too
  // many gateways.
  absl::Status Expect(const GatewayId& gateway);
  // The emits of one step of one gateway; `costs` of the sequences that end in it. False: the
  // gateway fell behind. Its stream is closed, what it was owed is forgotten, and the sequences
  // whose end was among it are owed the end of an overloaded gateway instead: the caller ends the
  // others so. Emits for an unknown gateway are dropped.
  bool Push(const GatewayId& gateway, std::vector<step::Emit> emits,
            std::map<SequenceKey, SequenceCost> costs);

  // `live`: the sequences that the worker holds; others of `resume` that no unacknowledged end
  // names are lost here, and told as superseded.
  void Attach(const GatewayId& gateway, const std::vector<step::ResumePoint>& resume,
              std::shared_ptr<TokenSink> sink, const std::vector<SequenceKey>& live);
  void Detach(const GatewayId& gateway, const TokenSink* sink);
  void Acknowledge(const GatewayId& gateway, uint64_t step);

  Instant NextDeadline() const;  // the first lease's end
  std::vector<GatewayId> TakeExpired(
      Instant now);  // forgets those whose lease is over: their sequences are to be cancelled
  bool AllAcknowledged() const;
  void CloseAll(const absl::Status& status);

 private:
  struct Ended {
    uint64_t step = 0;  // of the message that says so
    SequenceCost cost;
  };
  struct Gateway {
    explicit Gateway(const EngineConfig& config)
        : outbox(config.max_replay_messages, config.gateway_lease) {}
    step::TokenOutbox outbox;
    std::shared_ptr<TokenSink> sink;    // null: detached
    uint64_t pushed = 0;                // messages, hence the last one's step
    std::map<SequenceKey, Ended> ends;  // not acknowledged
  };
  void Send(Gateway& gateway);
  void Overload(const GatewayId& id, Gateway& gateway, std::map<SequenceKey, SequenceCost> costs);

  EngineContext& context_;
  std::map<GatewayId, Gateway> gateways_;
};

}  // namespace tandem
