#include "scheduler/step/token_outbox.h"

#include "scheduler/base/check.h"

namespace tandem::step {
namespace {

// Whether a gateway that has `received` tokens of the emit's sequence has all that the emit says.
bool IsReceived(const Emit& emit, const std::map<SequenceKey, uint32_t>& received) {
  const auto it = received.find(emit.sequence);
  return it != received.end() && emit.token.has_value() && emit.position < it->second;
}

}  // namespace

TokenOutbox::TokenOutbox(uint32_t max_messages, Duration lease)
    : max_messages_(max_messages), lease_(lease) {
  TANDEM_CHECK(max_messages >= 1);
}

bool TokenOutbox::Push(std::vector<Emit> emits) {
  if (unacknowledged_.size() >= max_messages_) return false;
  OutboxMessage message{next_step_++, std::move(emits)};
  if (attached_) to_send_.push_back(message);
  unacknowledged_.push_back(std::move(message));
  return true;
}

void TokenOutbox::Attach(const std::vector<ResumePoint>& resume) {
  attached_ = true;
  lease_end_ = Instant::Never();
  std::map<SequenceKey, uint32_t> received;
  for (const ResumePoint& point : resume) received[point.sequence] = point.received;
  for (OutboxMessage& message : unacknowledged_) {
    std::erase_if(message.emits, [&](const Emit& emit) { return IsReceived(emit, received); });
  }
  std::erase_if(unacknowledged_,
                [](const OutboxMessage& message) { return message.emits.empty(); });
  to_send_.assign(unacknowledged_.begin(), unacknowledged_.end());
}

void TokenOutbox::Forget() {
  unacknowledged_.clear();
  to_send_.clear();
}

void TokenOutbox::Detach(Instant now) {
  if (!attached_) return;
  attached_ = false;
  lease_end_ = now + lease_;
  to_send_.clear();
}

void TokenOutbox::Acknowledge(uint64_t step) {
  while (!unacknowledged_.empty() && unacknowledged_.front().step <= step)
    unacknowledged_.pop_front();
}

std::vector<OutboxMessage> TokenOutbox::TakeToSend() {
  std::vector<OutboxMessage> messages;
  messages.swap(to_send_);
  return messages;
}

}  // namespace tandem::step
