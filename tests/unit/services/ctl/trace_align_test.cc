// One clock for several workers, from hand-offs that both ends timed.

#include "services/ctl/trace/align.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "scheduler/base/random.h"
#include "services/ctl/trace/overlap.h"

namespace tandem::ctl {
namespace {

constexpr int64_t kMs = 1'000'000;

WorkerTrace Worker(const std::string& name, std::vector<std::string> peers) {
  WorkerTrace worker;
  worker.worker = name;
  worker.peers = std::move(peers);
  return worker;
}

TracedSpan At(v1::SpanKind kind, int64_t begin_ns, int64_t end_ns, uint64_t step,
              uint32_t layer = 0) {
  TracedSpan span;
  span.kind = kind;
  span.begin_ns = begin_ns;
  span.end_ns = end_ns;
  span.step = step;
  span.layer = layer;
  span.peer = 0;
  return span;
}

// One call of `a` (on true time) to `f`, whose clock is `skew_ns` ahead of true time.
void AddCall(WorkerTrace& a, WorkerTrace& f, uint32_t peer_of_a, uint64_t step, int64_t sent_ns,
             int64_t out_ns, int64_t served_ns, int64_t back_ns, int64_t skew_ns) {
  const int64_t arrived_ns = sent_ns + out_ns, answered_ns = arrived_ns + served_ns;
  a.spans.push_back(At(v1::SPAN_KIND_A2F, sent_ns, answered_ns + back_ns, step));
  a.spans.back().peer = peer_of_a;
  f.spans.push_back(At(v1::SPAN_KIND_SERVED, arrived_ns + skew_ns, answered_ns + skew_ns, step));
}

// Goal: skews of +7 ms and -3 ms are found within half the least round trip, which is what can be
// known. Method: each way takes 50 us and a noise of up to 4 ms, more on the way out than back.
TEST(AlignClocks, FindsPlantedSkewsUnderAsymmetricNoise) {
  Random random(20261124);
  std::vector<WorkerTrace> workers = {Worker("a", {"f", "g"}), Worker("f", {"a"}),
                                      Worker("g", {"a"})};
  const int64_t skew_ns[] = {0, 7 * kMs, -3 * kMs};
  for (uint64_t step = 1; step <= 400; step++) {
    for (uint32_t ffn = 1; ffn <= 2; ffn++) {
      AddCall(workers[0], workers[ffn], ffn - 1, step, static_cast<int64_t>(step) * 20 * kMs,
              50'000 + static_cast<int64_t>(random.Below(4 * kMs)), 300'000,
              50'000 + static_cast<int64_t>(random.Below(kMs)), skew_ns[ffn]);
    }
  }
  const std::vector<Handoff> handoffs = MatchHandoffs(workers);
  ASSERT_EQ(handoffs.size(), 800u);
  const std::vector<WorkerClock> clocks = AlignClocks(3, handoffs);
  EXPECT_EQ(clocks[0].offset_ns, 0);
  for (int ffn = 1; ffn <= 2; ffn++) {
    EXPECT_TRUE(clocks[ffn].aligned);
    EXPECT_LT(clocks[ffn].error_ns, kMs / 2) << "400 tries found no quick one";
    EXPECT_LE(std::abs(clocks[ffn].offset_ns + skew_ns[ffn]), clocks[ffn].error_ns) << ffn;
  }
}

TEST(AlignClocks, ReachesWorkersOverOthersByTheQuickestPairs) {
  // a1 - f1 - a2 - f2 in a line, and a slow direct way from a1 to f2.
  std::vector<WorkerTrace> workers = {Worker("a1", {"f1", "f2"}), Worker("a2", {"f1", "f2"}),
                                      Worker("f1", {"a1", "a2"}), Worker("f2", {"a1", "a2"}),
                                      Worker("p", {})};
  const auto call = [&](uint32_t a, uint32_t f, int64_t skew_a, int64_t skew_f, int64_t out_ns) {
    WorkerTrace sent = Worker("", {}), served = Worker("", {});
    AddCall(sent, served, f - 2, 1 + a, 100 * kMs, out_ns, kMs, 10'000, skew_f);
    sent.spans[0].begin_ns += skew_a;
    sent.spans[0].end_ns += skew_a;
    served.spans[0].peer = a;
    workers[a].spans.push_back(sent.spans[0]);
    workers[f].spans.push_back(served.spans[0]);
  };
  call(0, 2, 0, 5 * kMs, 10'000);
  call(1, 2, -2 * kMs, 5 * kMs, 10'000);
  call(1, 3, -2 * kMs, 9 * kMs, 10'000);
  call(0, 3, 0, 9 * kMs, 8 * kMs);
  const std::vector<WorkerClock> clocks = AlignClocks(5, MatchHandoffs(workers));
  EXPECT_EQ(clocks[1].offset_ns, 2 * kMs);
  EXPECT_EQ(clocks[2].offset_ns, -5 * kMs);
  EXPECT_EQ(clocks[3].offset_ns, -9 * kMs);
  EXPECT_EQ(clocks[3].error_ns, 30'000) << "the errors of three pairs";
  EXPECT_FALSE(clocks[4].aligned) << "nobody handed anything to it";
  EXPECT_EQ(clocks[4].offset_ns, 0);
}

TEST(AlignClocks, KeepsEveryClockWithoutHandoffs) {
  for (const WorkerClock& clock : AlignClocks(3, {})) {
    EXPECT_FALSE(clock.aligned);
    EXPECT_EQ(clock.offset_ns, 0);
  }
}

TEST(MatchHandoffs, TakesNoCallThatIsThereTwiceOrNeverOrImpossible) {
  std::vector<WorkerTrace> workers = {Worker("a", {"f", "nobody"}), Worker("f", {"a"})};
  AddCall(workers[0], workers[1], 0, 1, 0, 10, 10, 10, 0);
  AddCall(workers[0], workers[1], 0, 2, 100, 10, 10, 10, 0);
  AddCall(workers[0], workers[1], 0, 2, 200, 10, 10, 10, 0);   // step 2 once more: a new life
  AddCall(workers[0], workers[1], 1, 3, 300, 10, 10, 10, 0);   // to a worker that is not traced
  AddCall(workers[0], workers[1], 0, 4, 400, -30, 10, 10, 0);  // there before it was sent
  workers[0].spans.push_back(At(v1::SPAN_KIND_A2F, 500, 600, 5));
  workers[0].spans.push_back(At(v1::SPAN_KIND_A2F, 500, 600, 6, 7));
  workers[1].spans.push_back(At(v1::SPAN_KIND_SERVED, 500, 600, 6, 8));  // another layer
  const std::vector<Handoff> handoffs = MatchHandoffs(workers);
  ASSERT_EQ(handoffs.size(), 1u);
  EXPECT_EQ(handoffs[0].sent_ns, 0);
  EXPECT_EQ(handoffs[0].received_ns, 30);
  EXPECT_EQ(handoffs[0].RoundTrip(), 20);
}

TEST(OverlapOf, CountsTimeInWhichBothAreComputedOnce) {
  std::vector<WorkerTrace> workers = {Worker("a", {}), Worker("b", {}), Worker("f", {})};
  workers[0].spans = {At(v1::SPAN_KIND_ATTENTION, 0, 100 * kMs, 1),
                      At(v1::SPAN_KIND_STEP, 0, 900 * kMs, 1),
                      At(v1::SPAN_KIND_PREFILL, 100 * kMs, 900 * kMs, 1)};
  workers[1].spans = {At(v1::SPAN_KIND_HEAD, 50 * kMs, 150 * kMs, 1)};
  // On its own clock, which is 10 ms ahead.
  workers[2].spans = {At(v1::SPAN_KIND_FFN, 90 * kMs, 210 * kMs, 1)};
  std::vector<WorkerClock> clocks(3);
  clocks[2].offset_ns = -10 * kMs;
  const Overlap overlap = OverlapOf(workers, clocks);
  EXPECT_NEAR(overlap.attention_seconds, 0.150, 1e-9);
  EXPECT_NEAR(overlap.ffn_seconds, 0.120, 1e-9);
  EXPECT_NEAR(overlap.both_seconds, 0.070, 1e-9);
}

}  // namespace
}  // namespace tandem::ctl
