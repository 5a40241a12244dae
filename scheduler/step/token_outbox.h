#pragma once

// Tokens on their way to one gateway: what it has not acknowledged, for replay after a broken
// stream.

#include <cstdint>
#include <deque>
#include <map>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/step/decode_machine.h"

namespace tandem::step {

// One message: a step's tokens of one gateway.
struct OutboxMessage {
  uint64_t step = 0;  // rises by one with each message
  std::vector<Emit> emits;
};

// What the gateway has of one sequence: `received` output tokens.
struct ResumePoint {
  SequenceKey sequence;
  uint32_t received = 0;
};

// One gateway's outbox. Not thread-safe; lives on the device's thread.
class TokenOutbox {
 public:
  // `max_messages` unacknowledged at most; past it the gateway has fallen behind.
  TokenOutbox(uint32_t max_messages, Duration lease);

  // Adds the emits of a step as one message; with a stream attached it is also in TakeToSend.
  // False: the replay buffer is full; the caller ends the gateway's sequences with kFailed and
  // GatewayOverloadedError.
  bool Push(std::vector<Emit> emits);
  // A stream came (the first, or one after a break): unacknowledged messages are to be sent again,
  // but for the tokens that `resume` says were received (and the ends that came with them). A
  // message of which nothing is left is dropped: its number is never sent.
  void Attach(const std::vector<ResumePoint>& resume);
  // The gateway fell behind: what it has not acknowledged is forgotten; numbers go on.
  void Forget();
  // The stream broke: the lease starts.
  void Detach(Instant now);
  void Acknowledge(uint64_t step);

  std::vector<OutboxMessage> TakeToSend();
  bool attached() const { return attached_; }
  Instant lease_end() const { return lease_end_; }  // Never() while attached
  bool idle() const { return unacknowledged_.empty(); }

 private:
  uint32_t max_messages_;
  Duration lease_;
  bool attached_ = false;
  Instant lease_end_ = Instant::Never();
  uint64_t next_step_ = 1;
  std::deque<OutboxMessage> unacknowledged_;
  std::vector<OutboxMessage> to_send_;
};

}  // namespace tandem::step
