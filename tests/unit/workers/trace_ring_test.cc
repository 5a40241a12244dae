// The ring of spans: order, wrap-around, what a late reader is told, and a writer and readers at
// once (label tsan).

#include <gtest/gtest.h>

#include <atomic>
#include <thread>
#include <vector>

#include "workers/trace/trace_log.h"

namespace tandem {
namespace {

// Every field says the number, so that a torn span shows.
Span Numbered(uint64_t n) {
  const auto low = static_cast<uint32_t>(n);
  const auto kind = static_cast<SpanKind>(n % 10);
  // Attention has no attempts, and it alone a context.
  const bool attention = kind == SpanKind::kAttention;
  return {.kind = kind,
          .cause = static_cast<ledger::Cause>(n % 11),
          .peer = static_cast<uint16_t>(n),
          .calls = static_cast<uint16_t>(n * 3),
          .layer = low * 5,
          .micro_batch = low * 7,
          .attempt = attention ? 0 : low * 11,
          .context_tokens = attention ? low * 11 : 0,
          .rows = low * 13,
          .step = n,
          .begin = Instant::FromNanoseconds(static_cast<int64_t>(n * 17)),
          .end = Instant::FromNanoseconds(static_cast<int64_t>(n * 19))};
}

TEST(SpanRing, GivesEverySpanOnceInOrder) {
  SpanRing ring(16);
  uint64_t mark = 0;
  std::vector<Span> read;
  EXPECT_EQ(ring.Read(mark, 100, read), 0u);
  EXPECT_TRUE(read.empty());
  for (uint64_t n = 0; n < 100; n++) {
    ring.Add(Numbered(n));
    if (n % 7 == 0) {
      EXPECT_EQ(ring.Read(mark, 100, read), 0u);
    }
  }
  EXPECT_EQ(ring.Read(mark, 100, read), 0u);
  ASSERT_EQ(read.size(), 100u);
  for (uint64_t n = 0; n < 100; n++) EXPECT_EQ(read[n], Numbered(n)) << n;
}

TEST(SpanRing, ReadsNoMoreThanAsked) {
  SpanRing ring(16);
  for (uint64_t n = 0; n < 10; n++) ring.Add(Numbered(n));
  uint64_t mark = 0;
  std::vector<Span> read;
  EXPECT_EQ(ring.Read(mark, 4, read), 0u);
  EXPECT_EQ(read.size(), 4u);
  EXPECT_EQ(mark, 4u);
  EXPECT_EQ(ring.Read(mark, 100, read), 0u);
  EXPECT_EQ(read.size(), 10u);
}

TEST(SpanRing, TellsALateReaderHowManyItLost) {
  SpanRing ring(16);
  uint64_t mark = 0;
  std::vector<Span> read;
  for (uint64_t n = 0; n < 116; n++) ring.Add(Numbered(n));
  // One place is the writer's, who may be in it.
  EXPECT_EQ(ring.Read(mark, 100, read), 101u);
  ASSERT_EQ(read.size(), 15u);
  EXPECT_EQ(read.front(), Numbered(101));
  EXPECT_EQ(read.back(), Numbered(115));
  EXPECT_EQ(mark, 116u);
  // A mark that no ring gave is taken as the newest.
  mark = 1'000'000;
  EXPECT_EQ(ring.Read(mark, 100, read), 0u);
  EXPECT_EQ(mark, 116u);
}

// Method: a writer that laps two readers again and again, while what they get says of itself
// whether it is whole.
TEST(SpanRing, ReadersGetWholeSpansAndAnExactCountWhileOneWrites) {
  constexpr uint64_t kSpans = 300'000;
  SpanRing ring(64);
  std::atomic<bool> done{false};
  const auto read_all = [&] {
    uint64_t mark = 0, next = 0, lost = 0, seen = 0;
    for (bool last = false; !last;) {
      last = done.load();
      std::vector<Span> read;
      const uint64_t missed = ring.Read(mark, 1000, read);
      next += missed;
      lost += missed;
      for (const Span& span : read) {
        ASSERT_EQ(span, Numbered(next)) << "span " << next;
        next++;
        seen++;
      }
    }
    EXPECT_EQ(seen + lost, kSpans);
    EXPECT_GT(seen, 0u);
  };
  std::thread first(read_all), second(read_all);
  for (uint64_t n = 0; n < kSpans; n++) ring.Add(Numbered(n));
  done.store(true);
  first.join();
  second.join();
}

TEST(TraceLog, NamesPeersForGoodAndUpToItsBound) {
  TraceLog log(16);
  EXPECT_EQ(log.PeerIndex("attention-0"), 0);
  EXPECT_EQ(log.PeerIndex("attention-1"), 1);
  EXPECT_EQ(log.PeerIndex("attention-0"), 0);
  EXPECT_EQ(log.Peers(1), std::vector<std::string>{"attention-1"});
  for (size_t i = 2; i < kMaxTracePeers; i++) log.PeerIndex(std::to_string(i));
  EXPECT_EQ(log.PeerIndex("one too many"), kNoPeer);
  EXPECT_EQ(log.PeerIndex("attention-1"), 1);
  EXPECT_EQ(log.Peers(0).size(), kMaxTracePeers);
  EXPECT_TRUE(log.Peers(kMaxTracePeers + 5).empty());
}

}  // namespace
}  // namespace tandem
