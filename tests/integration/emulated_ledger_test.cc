// What takes longer is booked where it does, and nowhere else: 5 ms more of one thing, between two
// runs that are else the same to the nanosecond.

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <string>
#include <tuple>
#include <vector>

#include "tests/fakes/emulated_world.h"

namespace tandem {
namespace {

using ledger::Cause;
using ledger::LedgerState;
using test::EmulatedNode;
using test::EmulatedWorld;

constexpr double kMore = 5e-3;
constexpr uint32_t kTokens = 12;
const std::vector<TokenId> kPrompt = {1, 2, 3, 4, 5, 6, 7};

using Change = std::function<void(model::Device&)>;

struct Changes {
  Change prefill, attention, ffn;
  Duration merge_wait;
};

// Seconds by (worker, state, cause); without idle{no_work, starting}, which the host's pace is in.
using Cells = std::map<std::tuple<std::string, LedgerState, Cause>, double>;

Cells CellsOf(EmulatedWorld& world, const std::vector<std::string>& workers) {
  Cells cells;
  for (const std::string& name : workers) {
    for (const ledger::LedgerCell& cell : world.Books(world.node(name)).cells) {
      if (cell.cause == Cause::kNoWork || cell.cause == Cause::kStarting) continue;
      cells[{name, cell.state, cell.cause}] += cell.time.seconds();
    }
  }
  return cells;
}

// `raised` went up by kMore; every other cell but `followers` by no more than a tenth of that.
void ExpectMore(const Cells& before, const Cells& after, const std::vector<Cells::key_type>& raised,
                const std::vector<Cells::key_type>& followers = {}) {
  const auto value = [](const Cells& cells, const Cells::key_type& key) {
    const auto found = cells.find(key);
    return found == cells.end() ? 0.0 : found->second;
  };
  Cells all = before;
  all.insert(after.begin(), after.end());
  for (const auto& key : raised) all[key];
  for (const auto& cell : all) {
    const Cells::key_type& key = cell.first;
    const auto is_key = [&](const auto& other) { return other == key; };
    if (std::any_of(followers.begin(), followers.end(), is_key)) continue;
    const bool more = std::any_of(raised.begin(), raised.end(), is_key);
    const auto& [worker, state, cause] = key;
    EXPECT_NEAR(value(after, key) - value(before, key), more ? kMore : 0, kMore / 10)
        << worker << " " << ToString(state) << " " << ToString(cause) << ": " << value(before, key)
        << " s, then " << value(after, key) << " s";
  }
}

// One sequence through afd.
Cells PlayOne(const Changes& changes) {
  EmulatedWorld world;
  EmulatedNode& a = world.Add("A", {Stage::kPrefill, Stage::kAttention},
                              EmulatedWorld::Table("vera-rubin", "llama-3-8b", changes.attention));
  world.Add("F", {Stage::kFfn}, EmulatedWorld::Table("groq3-lpx-rack", "llama-3-8b", changes.ffn));
  world.Start();
  world.SetGroup(a, {"F"});
  world.Generate(a, kPrompt, kTokens);
  return CellsOf(world, {"A", "F"});
}

// One sequence's prefill and first token through pd-afd. Between the two commands that begin it is
// the host's time, which a large scale makes small.
Cells PlayPrefill(const Changes& changes) {
  EmulatedWorld world(400);
  EmulatedNode& p = world.Add("P", {Stage::kPrefill},
                              EmulatedWorld::Table("vera-rubin", "llama-3-8b", changes.prefill));
  EmulatedNode& a = world.Add("A", {Stage::kAttention},
                              EmulatedWorld::Table("vera-rubin", "llama-3-8b", changes.attention));
  world.Add("F", {Stage::kFfn}, EmulatedWorld::Table("groq3-lpx-rack", "llama-3-8b", changes.ffn));
  world.Start();
  world.SetGroup(a, {"F"});
  world.Generate(a, kPrompt, 1, "r", &p);
  return CellsOf(world, {"P", "A", "F"});
}

// FFN calls of a run: one a layer and step.
double Calls() { return 32.0 * kTokens; }

TEST(EmulatedLedger, TheSameRunHasTheSameBooks) { ExpectMore(PlayOne({}), PlayOne({}), {}); }

TEST(EmulatedLedger, MoreComputeIsBusyAtFAndPeerComputeAtA) {
  Changes changes;
  changes.ffn = [](model::Device& device) {
    // The FFN takes its share of a layer's fixed time.
    const double each = kMore / Calls() / (1 - cost::kAttentionOverheadShare);
    device.layer_seconds[model::Dtype::kFp8] = device.LayerSeconds(model::Dtype::kFp8);
    device.layer_seconds[model::Dtype::kFp8].value += each;
  };
  ExpectMore(
      PlayOne({}), PlayOne(changes),
      {{"F", LedgerState::kBusy, Cause::kNone}, {"A", LedgerState::kStall, Cause::kPeerCompute}});
}

TEST(EmulatedLedger, ALongerLinkIsHandoffAtA) {
  Changes changes;
  changes.ffn = [](model::Device& device) {
    // Twice for each call; the longer latency of the two ends counts, and A's is the same.
    device.link.latency_seconds.value += kMore / Calls() / 2;
  };
  // F has nothing to do meanwhile, while a sequence lives.
  ExpectMore(PlayOne({}), PlayOne(changes), {{"A", LedgerState::kStall, Cause::kHandoff}},
             {{"F", LedgerState::kIdle, Cause::kStarved}});
}

TEST(EmulatedLedger, ALongerKvTransferIsKvTransferAtA) {
  Changes changes;
  changes.prefill = [](model::Device& device) { device.link.latency_seconds.value += kMore; };
  // P waits for the last acknowledgement just as long, and F for rows of a sequence that lives.
  ExpectMore(PlayPrefill({}), PlayPrefill(changes),
             {{"A", LedgerState::kStall, Cause::kKvTransfer},
              {"P", LedgerState::kStall, Cause::kKvTransfer},
              {"F", LedgerState::kIdle, Cause::kStarved}});
}

struct Answered final : FfnReplySink {
  void Reply(F2a reply) override {
    EXPECT_TRUE(reply.status.ok()) << reply.status;
    latch.Open();
  }
  test::Latch latch;
};

// A second attention worker sends one call of the first layer, and then nothing more.
void CallOnce(EmulatedNode& f, const ModelDimensions& model) {
  const HandoffHello hello{"B", f.core->config().model, model.hidden, model.layers, "", 1, 1};
  const auto sink = std::make_shared<Answered>();
  test::Promise<step::StreamId> opened;
  f.core->ffn().OpenStream(hello, sink, [&](auto stream) {
    ASSERT_TRUE(stream.ok()) << stream.status();
    opened.Set(stream->first);
  });
  A2f call;
  call.call = {1, 0, 0, 0};
  call.rows = 1;
  call.shard_epoch = 1;
  call.data.assign(model.hidden, 0);
  f.core->ffn().Call(*opened.Wait(), std::move(call));
  EXPECT_TRUE(sink->latch.Wait());
}

Cells PlayWithAnother(const Changes& changes) {
  constexpr uint32_t kFew = 6;
  EmulatedWorld world(200);  // the other one comes by the host's clock, which may be late
  EmulatedNode& a = world.Add("A", {Stage::kPrefill, Stage::kAttention},
                              EmulatedWorld::Table("vera-rubin", "llama-3-8b"));
  EmulatedNode& f =
      world.Add("F", {Stage::kFfn}, EmulatedWorld::Table("groq3-lpx-rack", "llama-3-8b"),
                [&](EngineConfig& config) {
                  config.max_merge_wait = changes.merge_wait;
                  config.shard_epoch = 1;
                });
  world.Start();
  world.SetGroup(a, {"F"});
  world.Begin(a, kPrompt, kFew, "r");
  world.WaitForTokens("r", 2);
  CallOnce(f, world.dimensions());
  world.ExpectExact(kPrompt, kFew, "r");
  return CellsOf(world, {"A", "F"});
}

// The next call of that layer waits for the other worker's, which is expected and never comes; a
// step later nobody expects it any more.
TEST(EmulatedLedger, AMergeWaitIsBatchWaitAtFAndPeerQueueAtA) {
  Changes changes;
  changes.merge_wait = Duration::FromSeconds(kMore);
  ExpectMore(PlayWithAnother({}), PlayWithAnother(changes),
             {{"F", LedgerState::kStall, Cause::kBatchWait},
              {"A", LedgerState::kStall, Cause::kPeerQueue}},
             {{"F", LedgerState::kIdle, Cause::kStarved}});  // the other worker came as it liked
}

}  // namespace
}  // namespace tandem
