#include "scheduler/step/token_outbox.h"

#include <gtest/gtest.h>

namespace tandem::step {
namespace {

constexpr Instant kNow = Instant::FromNanoseconds(1000);

Emit Token(const std::string& name, uint32_t position) {
  return {GatewayId("g"),
          {RequestId(name), 0, 0},
          position,
          SampledToken{position, 0, {}},
          std::nullopt};
}
Emit End(const std::string& name, uint32_t position) {
  return {GatewayId("g"),
          {RequestId(name), 0, 0},
          position,
          std::nullopt,
          SequenceEnd{EndReason::kCancelled, absl::OkStatus()}};
}

TEST(TokenOutbox, SendsWhatIsPushedOnceWithRisingSteps) {
  TokenOutbox outbox(8, Duration::Seconds(5));
  outbox.Attach({});
  EXPECT_TRUE(outbox.Push({Token("a", 0)}));
  EXPECT_TRUE(outbox.Push({Token("a", 1), Token("b", 0)}));
  const std::vector<OutboxMessage> sent = outbox.TakeToSend();
  ASSERT_EQ(sent.size(), 2u);
  EXPECT_EQ(sent[0].step, 1u);
  EXPECT_EQ(sent[1].step, 2u);
  EXPECT_EQ(sent[1].emits.size(), 2u);
  EXPECT_TRUE(outbox.TakeToSend().empty());
  EXPECT_FALSE(outbox.idle());
  outbox.Acknowledge(1);
  EXPECT_FALSE(outbox.idle());
  outbox.Acknowledge(2);
  EXPECT_TRUE(outbox.idle());
}

TEST(TokenOutbox, WhatIsPushedBeforeAStreamIsSentWhenItComes) {
  TokenOutbox outbox(8, Duration::Seconds(5));
  EXPECT_TRUE(outbox.Push({Token("a", 0)}));
  EXPECT_TRUE(outbox.TakeToSend().empty());
  EXPECT_EQ(outbox.lease_end(), Instant::Never());
  outbox.Attach({});
  EXPECT_EQ(outbox.TakeToSend().size(), 1u);
}

TEST(TokenOutbox, WhatIsForgottenIsNotReplayedAndItsNumbersAreNotUsedAgain) {
  TokenOutbox outbox(2, Duration::Seconds(5));
  outbox.Attach({});
  EXPECT_TRUE(outbox.Push({Token("a", 0)}));
  EXPECT_TRUE(outbox.Push({Token("a", 1)}));
  outbox.Forget();
  EXPECT_TRUE(outbox.idle());
  outbox.Detach(kNow);
  EXPECT_TRUE(outbox.Push({End("a", 2)}));
  outbox.Acknowledge(2);  // a late word of the old stream
  outbox.Attach({{{RequestId("a"), 0, 0}, 1}});
  const std::vector<OutboxMessage> sent = outbox.TakeToSend();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].step, 3u);
  EXPECT_TRUE(sent[0].emits[0].end.has_value());
}

TEST(TokenOutbox, AGatewayThatFallsBehindIsRefusedAtTheBound) {
  TokenOutbox outbox(2, Duration::Seconds(5));
  outbox.Attach({});
  EXPECT_TRUE(outbox.Push({Token("a", 0)}));
  EXPECT_TRUE(outbox.Push({Token("a", 1)}));
  outbox.TakeToSend();
  EXPECT_FALSE(outbox.Push({Token("a", 2)}));
  outbox.Acknowledge(1);
  EXPECT_TRUE(outbox.Push({Token("a", 2)}));
}

TEST(TokenOutbox, ABrokenStreamStartsTheLeaseAndANewOneEndsIt) {
  TokenOutbox outbox(8, Duration::Seconds(5));
  outbox.Attach({});
  EXPECT_EQ(outbox.lease_end(), Instant::Never());
  outbox.Detach(kNow);
  EXPECT_FALSE(outbox.attached());
  EXPECT_EQ(outbox.lease_end(), kNow + Duration::Seconds(5));
  outbox.Detach(kNow + Duration::Seconds(1));  // does not prolong it
  EXPECT_EQ(outbox.lease_end(), kNow + Duration::Seconds(5));
  outbox.Attach({});
  EXPECT_EQ(outbox.lease_end(), Instant::Never());
}

TEST(TokenOutbox, AfterABreakOnlyWhatWasNotReceivedIsSentAgain) {
  TokenOutbox outbox(8, Duration::Seconds(5));
  outbox.Attach({});
  outbox.Push({Token("a", 0), Token("b", 0)});
  outbox.Push({Token("a", 1), Token("b", 1)});
  outbox.Push({Token("a", 2), End("b", 2)});
  outbox.Detach(kNow);
  outbox.Push({Token("a", 3)});
  outbox.Attach({{{RequestId("a"), 0, 0}, 2}, {{RequestId("b"), 0, 0}, 2}});
  const std::vector<OutboxMessage> sent = outbox.TakeToSend();
  ASSERT_EQ(sent.size(), 2u);  // steps 1 and 2 are received in full
  EXPECT_EQ(sent[0].step, 3u);
  ASSERT_EQ(sent[0].emits.size(), 2u);  // an end that came alone is said again
  EXPECT_EQ(sent[0].emits[0].position, 2u);
  EXPECT_TRUE(sent[0].emits[1].end.has_value());
  EXPECT_EQ(sent[1].step, 4u);
  outbox.Acknowledge(4);
  EXPECT_TRUE(outbox.idle());
}

TEST(TokenOutbox, ASequenceThatTheGatewayDoesNotNameIsSentInFull) {
  TokenOutbox outbox(8, Duration::Seconds(5));
  outbox.Attach({});
  outbox.Push({Token("a", 0)});
  outbox.Attach({{{RequestId("a"), 0, 1}, 9}});  // another attempt
  EXPECT_EQ(outbox.TakeToSend().size(), 1u);
}

}  // namespace
}  // namespace tandem::step
