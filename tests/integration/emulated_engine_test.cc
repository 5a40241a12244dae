// Emulated devices behind the real engines, in one process: what a step takes on the devices' own
// clock is what the cost model says, whatever the host adds, and the ledger accounts for all of it.

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/cost/cost_table.h"
#include "scheduler/cost/cycle.h"
#include "tests/fakes/emulated_world.h"

namespace tandem {
namespace {

using ledger::Cause;
using ledger::LedgerStage;
using ledger::LedgerState;
using test::EmulatedNode;
using test::EmulatedWorld;
using test::SecondsIn;
using test::SecondsInAll;

// What the device did or waited for: one thing after the other.
bool FillsTheLine(SpanKind kind) {
  return kind != SpanKind::kStep && kind != SpanKind::kA2f && kind != SpanKind::kServed &&
         kind != SpanKind::kKvSent;
}

// All spans of a device, added up in the device's seconds. Its line has no gap between them.
class SpanSums {
 public:
  explicit SpanSums(const TraceLog& log) {
    uint64_t mark = 0;
    std::vector<Span> spans;
    EXPECT_EQ(log.ring().Read(mark, kTraceSpans, spans), 0u);
    std::optional<Instant> line;
    for (const Span& span : spans) {
      if (FillsTheLine(span.kind)) {
        EXPECT_EQ(span.begin, line.value_or(span.begin)) << static_cast<int>(span.kind);
        line = span.end;
      }
      const double seconds = (span.end - span.begin).seconds() / EmulatedWorld::kTimeScale;
      count_[span.kind]++;
      seconds_[span.kind] += seconds;
      if (span.kind == SpanKind::kWait) waits_[span.cause] += seconds;
    }
  }
  uint64_t count(SpanKind kind) { return count_[kind]; }
  double seconds(SpanKind kind) { return seconds_[kind]; }
  double seconds(Cause cause) { return waits_[cause]; }

 private:
  std::map<SpanKind, uint64_t> count_;
  std::map<SpanKind, double> seconds_;
  std::map<Cause, double> waits_;
};

class EmulatedEngine : public ::testing::Test {
 protected:
  EmulatedWorld world_;
};

// Goal: at perturbation 0 the engines add nothing to the devices' time.
// Method: one sequence, so one micro-batch: attention, A2F, FFN, F2A, layer after layer. Every
// device second of both ledgers is then known from the cost model.
TEST_F(EmulatedEngine, AfdStepTakesWhatTheCostModelSaysAndTheLedgerKnowsWhere) {
  const cost::CostTable attention = EmulatedWorld::Table("vera-rubin", "llama-3-8b");
  const cost::CostTable ffn = EmulatedWorld::Table("groq3-lpx-rack", "llama-3-8b");
  EmulatedNode& a = world_.Add("A", {Stage::kPrefill, Stage::kAttention}, attention);
  EmulatedNode& f = world_.Add("F", {Stage::kFfn}, ffn);
  world_.Start();
  world_.SetGroup(a, {"F"});
  constexpr uint32_t kTokens = 12;
  const std::vector<TokenId> prompt = {1, 2, 3, 4, 5, 6, 7};
  world_.Generate(a, prompt, kTokens);

  const uint32_t layers = world_.dimensions().layers;
  const cost::LinkSpeed link = attention.link().With(ffn.link());
  const model::ModelShape& shape = attention.shape();
  double busy_a = 0, busy_f = 0, links = 0;
  for (uint32_t token = 0; token < kTokens; token++) {
    const auto rows = cost::AttentionRows::Even(shape, 1, prompt.size() + token);
    busy_a += (attention.Embed(1) + attention.Head(1)).seconds();
    for (uint32_t layer = 0; layer < layers; layer++) {
      busy_a += attention.AttentionLayer(layer, rows).seconds();
      busy_f += ffn.FfnLayer({}, layer, 1).seconds();
      links += link.Transfer(cost::A2fBytes(shape, attention.precision(), layer, 1)).seconds() +
               link.Transfer(cost::F2aBytes(shape, attention.precision(), 1)).seconds();
    }
  }
  const ledger::LedgerSnapshot books_a = world_.Books(a), books_f = world_.Books(f);
  const auto attention_stage = LedgerStage::kAttention;
  EXPECT_NEAR(SecondsIn(books_a, LedgerState::kBusy, std::nullopt, attention_stage), busy_a,
              0.001 * busy_a);
  EXPECT_NEAR(SecondsIn(books_f, LedgerState::kBusy), busy_f, 0.001 * busy_f);
  // What A waits is F's compute and the links, to within a part in a hundred; F never queues.
  EXPECT_NEAR(SecondsIn(books_a, LedgerState::kStall, Cause::kPeerCompute), busy_f, 0.01 * busy_f);
  EXPECT_NEAR(SecondsIn(books_a, LedgerState::kStall, Cause::kHandoff), links, 0.01 * links);
  EXPECT_NEAR(SecondsIn(books_a, LedgerState::kStall, Cause::kPeerQueue), 0, 0.01 * busy_f);
  // From the sequence's admission on F is busy or starved: while A prefills, while it computes, and
  // between two steps. What is left is its time before and after.
  const double starved = SecondsIn(books_f, LedgerState::kIdle, Cause::kStarved);
  const double prefill =
      SecondsIn(books_a, LedgerState::kBusy, std::nullopt, LedgerStage::kPrefill);
  EXPECT_NEAR(starved, prefill + busy_a + links, 0.01 * (prefill + busy_a + links));
  for (const ledger::LedgerSnapshot* books : {&books_a, &books_f})
    EXPECT_NEAR(SecondsInAll(*books), books->elapsed.seconds(), 0.001 * books->elapsed.seconds());
}

TEST_F(EmulatedEngine, AHolderThatComesUpWhileASequenceLivesIsTold) {
  EmulatedNode& a = world_.Add("A", {Stage::kPrefill, Stage::kAttention},
                               EmulatedWorld::Table("vera-rubin", "llama-3-8b"));
  EmulatedNode& f =
      world_.Add("F", {Stage::kFfn}, EmulatedWorld::Table("groq3-lpx-rack", "llama-3-8b"));
  world_.Start();
  world_.Begin(a, {1, 2, 3}, 6, "r");
  world_.SetGroup(a, {"F"});
  world_.ExpectExact({1, 2, 3}, 6, "r");
  const ledger::LedgerSnapshot books = world_.Books(f);
  EXPECT_GT(SecondsIn(books, LedgerState::kIdle, Cause::kStarved),
            SecondsIn(books, LedgerState::kBusy));
}

// Goal: the trace and the ledger tell one story, and a hand-off's two ends differ by its links.
// Method: the same run; every span of both devices, summed by kind in the devices' seconds.
TEST_F(EmulatedEngine, TheTraceSaysWhatTheLedgerSays) {
  const cost::CostTable attention = EmulatedWorld::Table("vera-rubin", "llama-3-8b");
  const cost::CostTable ffn = EmulatedWorld::Table("groq3-lpx-rack", "llama-3-8b");
  EmulatedNode& a = world_.Add("A", {Stage::kPrefill, Stage::kAttention}, attention);
  EmulatedNode& f = world_.Add("F", {Stage::kFfn}, ffn);
  world_.Start();
  world_.SetGroup(a, {"F"});
  constexpr uint32_t kTokens = 12;
  world_.Generate(a, {1, 2, 3, 4, 5, 6, 7}, kTokens);
  const ledger::LedgerSnapshot books_a = world_.Books(a), books_f = world_.Books(f);

  SpanSums sums_a(a.core->trace()), sums_f(f.core->trace());
  const uint64_t calls = uint64_t{world_.dimensions().layers} * kTokens;
  EXPECT_EQ(sums_a.count(SpanKind::kStep), kTokens);
  EXPECT_EQ(sums_a.count(SpanKind::kEmbed), kTokens);
  EXPECT_EQ(sums_a.count(SpanKind::kHead), kTokens);
  EXPECT_EQ(sums_a.count(SpanKind::kPrefill), world_.dimensions().layers);
  EXPECT_EQ(sums_a.count(SpanKind::kAttention), calls);
  EXPECT_EQ(sums_a.count(SpanKind::kA2f), calls);
  EXPECT_EQ(sums_f.count(SpanKind::kFfn), calls);
  EXPECT_EQ(sums_f.count(SpanKind::kServed), calls);

  const auto busy = [&](const ledger::LedgerSnapshot& books, ledger::LedgerStage stage) {
    return SecondsIn(books, LedgerState::kBusy, std::nullopt, stage);
  };
  EXPECT_NEAR(sums_a.seconds(SpanKind::kPrefill), busy(books_a, ledger::LedgerStage::kPrefill),
              1e-6);
  EXPECT_NEAR(sums_a.seconds(SpanKind::kEmbed) + sums_a.seconds(SpanKind::kAttention) +
                  sums_a.seconds(SpanKind::kHead),
              busy(books_a, ledger::LedgerStage::kAttention), 1e-6);
  EXPECT_NEAR(sums_f.seconds(SpanKind::kFfn), busy(books_f, ledger::LedgerStage::kFfn), 1e-6);
  // The ledger splits a wait for a reply by its causes, the trace does not.
  EXPECT_NEAR(sums_a.seconds(Cause::kHandoff), SecondsIn(books_a, LedgerState::kStall), 1e-6);
  EXPECT_NEAR(sums_f.seconds(Cause::kStarved),
              SecondsIn(books_f, LedgerState::kIdle, Cause::kStarved), 1e-6);
  EXPECT_NEAR(sums_a.seconds(SpanKind::kA2f) - sums_f.seconds(SpanKind::kServed),
              SecondsIn(books_a, LedgerState::kStall, Cause::kHandoff), 1e-6);
  EXPECT_EQ(a.core->trace().Peers(0), std::vector<std::string>{"F"});
  EXPECT_EQ(f.core->trace().Peers(0), std::vector<std::string>{"A"});
  // The wait that they are in is not over.
  for (const EmulatedNode* node : {&a, &f}) {
    const std::optional<Span> open = node->core->OpenWait();
    ASSERT_TRUE(open.has_value());
    EXPECT_EQ(open->cause, Cause::kNoWork);
    EXPECT_GT(open->end, open->begin);
  }
}

// Goal: a step is cut where that makes it shorter, and not where it does not.
// Method: Vera Rubin's attention has a long fixed time. With 4 rows a step of two micro-batches is
// longer than one of one; with 64 the other way round (cost::StepTime says so). Counted: FFN calls
// a layer.
TEST_F(EmulatedEngine, MicroBatchesAreAsManyAsMakeTheStepShortest) {
  const cost::CostTable attention = EmulatedWorld::Table("vera-rubin-x8", "llama-3-70b");
  const cost::CostTable ffn = EmulatedWorld::Table("groq3-lpx-rack", "llama-3-70b");
  const cost::LinkSpeed link = attention.link().With(ffn.link());
  const model::ModelShape& shape = attention.shape();
  const auto step = [&](uint32_t rows, uint32_t count) {
    const uint32_t size = rows / count;
    cost::CycleTimes times;
    times.attention = attention.AttentionLayer(1, cost::AttentionRows::Even(shape, size, 20));
    times.ffn = ffn.FfnLayer({}, 1, size);
    times.a2f = link.Transfer(cost::A2fBytes(shape, attention.precision(), 1, size));
    times.f2a = link.Transfer(cost::F2aBytes(shape, attention.precision(), size));
    return cost::StepTime(times, count, static_cast<uint32_t>(shape.layers),
                          attention.Head(size) * int64_t{count});
  };
  for (const auto& [rows, expected] : {std::pair(4u, 1u), std::pair(64u, 2u)}) {
    ASSERT_LT(step(rows, expected), step(rows, 3 - expected));
    EmulatedWorld world(4);
    EmulatedNode& a = world.Add("A", {Stage::kPrefill, Stage::kAttention}, attention,
                                [](EngineConfig& config) { config.micro_batches = 0; });
    EmulatedNode& f = world.Add("F", {Stage::kFfn}, ffn);
    world.Start();
    world.SetGroup(a, {"F"});
    constexpr uint32_t kTokens = 110;  // nobody ends before the last one has its 32
    for (uint32_t i = 0; i < rows; i++) world.Begin(a, {i, 1, 2}, kTokens, absl::StrCat("r", i));
    const std::string last = absl::StrCat("r", rows - 1);
    const auto steps_and_calls = [&] {  // of one step, however long the host keeps us from it
      for (;;) {
        const uint64_t steps = a.core->Report().counters.steps;
        const uint64_t calls = f.core->Report().counters.ffn_calls;
        if (a.core->Report().counters.steps == steps) return std::pair(steps, calls);
      }
    };
    world.WaitForTokens(last, 12);
    const auto [steps_before, calls_before] = steps_and_calls();
    world.WaitForTokens(last, 32);
    const auto [steps_after, calls_after] = steps_and_calls();
    const double steps = static_cast<double>(steps_after - steps_before);
    ASSERT_GT(steps, 10);
    EXPECT_NEAR(static_cast<double>(calls_after - calls_before) / (steps * shape.layers), expected,
                0.15)
        << rows << " rows";
  }
}

// Goal: a device that was idle starts where the machine's clock is, not where its last work ended.
// Method: the second sequence's work, from the moment at which it is asked for.
TEST_F(EmulatedEngine, WorkAfterAnIdleTimeStartsNow) {
  const cost::CostTable costs = EmulatedWorld::Table("groq3-lpx-rack", "llama-3-8b");
  EmulatedNode& w = world_.Add("W", {Stage::kPrefill, Stage::kAttention, Stage::kFfn}, costs);
  world_.Start();
  const RealTimeSource time;
  world_.Generate(w, {1, 2, 3}, 2, "first");
  const double busy_before = SecondsIn(world_.Books(w), LedgerState::kBusy);
  const Instant asked = time.Now();
  world_.Generate(w, {1, 2, 3}, 4, "second");
  const double busy = SecondsIn(world_.Books(w), LedgerState::kBusy) - busy_before;
  EXPECT_GT(busy, 0);
  EXPECT_GE((time.Now() - asked).seconds(), busy * EmulatedWorld::kTimeScale);
  EXPECT_GE((w.backend->timeline()->Now() - asked).seconds(),
            busy * EmulatedWorld::kTimeScale * 0.999999);
}

}  // namespace
}  // namespace tandem
