// The screen of `tandemctl top`, without one.

#include "services/ctl/top/frame.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include "services/ctl/top/snapshot.h"

namespace tandem::ctl {
namespace {

v1::WorkerStatus Worker(const std::string& id, const std::string& pool, v1::Stage stage,
                        const std::string& state = "ready") {
  v1::WorkerStatus worker;
  v1::Registration& told = *worker.mutable_registration();
  told.set_worker_id(id);
  told.set_pool(pool);
  told.add_stages(stage);
  told.set_device("emulated/h100-x8");
  told.set_memory_class(v1::MEMORY_CLASS_HBM);
  told.set_time_scale(4);
  told.mutable_capacity()->set_kv_blocks(stage == v1::STAGE_ATTENTION ? 100 : 0);
  worker.mutable_heartbeat()->set_kv_blocks_free(25);
  worker.mutable_heartbeat()->set_sequences(stage == v1::STAGE_ATTENTION ? 3 : 0);
  worker.set_state(state);
  return worker;
}

ledger::DeviceAccount Account(const std::string& id, const std::string& pool, double busy,
                              double handoff, double idle, uint64_t tokens_out) {
  ledger::DeviceAccount device;
  device.worker = id;
  device.pool = pool;
  device.device = "emulated/h100-x8";
  device.elapsed = Duration::FromSeconds(busy + handoff + idle);
  using enum ledger::LedgerState;
  device.cells = {
      {ledger::LedgerStage::kAttention, kBusy, ledger::Cause::kNone, Duration::FromSeconds(busy)},
      {ledger::LedgerStage::kAttention, kStall, ledger::Cause::kHandoff,
       Duration::FromSeconds(handoff)},
      {ledger::LedgerStage::kAttention, kIdle, ledger::Cause::kNoWork,
       Duration::FromSeconds(idle)}};
  device.tokens = {1, 20, tokens_out};
  device.price =
      ledger::RentedPrice("h100-x8", {36, model::Mark::kAssumed, "a test"}, model::Figure());
  return device;
}

TopSnapshot Snapshot(int attention_workers = 2) {
  v1::StatusReply status;
  status.set_router_id("router-1");
  status.set_ready(true);
  status.set_queued_requests(5);
  status.set_live_sequences(6);
  std::vector<ledger::DeviceAccount> devices;
  for (int i = 0; i < attention_workers; i++) {
    const std::string id = absl::StrCat("attention-", i);
    *status.add_workers() = Worker(id, "attention", v1::STAGE_ATTENTION);
    devices.push_back(Account(id, "attention", 6, 2, 2, 500));
  }
  *status.add_workers() = Worker("ffn-0", "ffn", v1::STAGE_FFN, "waiting_for_group");
  devices.push_back(Account("ffn-0", "ffn", 3, 0, 7, 0));
  return MakeTopSnapshot("127.0.0.1:9300", status, devices, 10);
}

std::string Text(const std::vector<TopLine>& lines) {
  std::string text;
  for (const TopLine& line : lines) absl::StrAppend(&text, PlainText(line), "\n");
  return text;
}

TEST(MakeTopSnapshot, AddsWorkersUpToPools) {
  const TopSnapshot top = Snapshot();
  ASSERT_EQ(top.pools.size(), 2u);
  const TopRow& attention = top.pools[0];
  EXPECT_EQ(attention.name, "attention");
  EXPECT_EQ(attention.workers, 2u);
  EXPECT_EQ(attention.state, "2 of 2 ready");
  EXPECT_EQ(top.pools[1].state, "0 of 1 ready");
  EXPECT_NEAR(BusyShare(attention.shares), 0.6, 1e-9);
  EXPECT_NEAR(StallShare(attention.shares), 0.2, 1e-9);
  EXPECT_NEAR(IdleShare(attention.shares), 0.2, 1e-9);
  EXPECT_EQ(attention.sequences, 6u);
  EXPECT_EQ(attention.kv_blocks_used, 150u);
  EXPECT_NEAR(attention.tokens_per_s, 100, 1e-9);
  EXPECT_NEAR(top.tokens_out_per_s, 100, 1e-9);
  EXPECT_EQ(top.time_scale, 4);
  // 30 device seconds at $36/h, over 1000 tokens out and 60 in: three devices count a prompt each.
  EXPECT_NEAR(*top.per_mtok_total, 0.3 / 1060 * 1e6, 1e-6);
  EXPECT_EQ(top.mark, "assumed");
}

TEST(MakeTopSnapshot, ADeviceWithoutAPriceIsNamedInPlaceOfDollars) {
  v1::StatusReply status;
  ledger::DeviceAccount device = Account("w", "p", 1, 0, 0, 10);
  device.price = {};
  const TopSnapshot top = MakeTopSnapshot("r", status, {device}, 10);
  EXPECT_EQ(top.per_mtok_total, std::nullopt);
  ASSERT_EQ(top.unpriced.size(), 1u);
  EXPECT_TRUE(absl::StrContains(Text(TopFrame(top, {})), "no price of"));
  ASSERT_EQ(top.pools.size(), 1u) << "a pool whose workers are all lost is still shown";
  EXPECT_EQ(top.pools[0].state, "0 of 0 ready");
}

// Goal: nothing overflows and nothing crashes, at any size. Method: every width and height of a
// small terminal, and some large ones, with and without blocks, and names that are hostile.
TEST(TopFrame, FitsEverySize) {
  TopSnapshot hostile = Snapshot(40);
  hostile.workers[0].name = "\x1b[2J世界-a-very-long-name-that-goes-on-and-on-and-on-and-on";
  hostile.pools[0].name = std::string(300, 'p');
  hostile.router_id = "\x07\n\r";
  hostile.lost = std::string(500, 'x');
  for (const TopSnapshot& top : {Snapshot(), hostile, TopSnapshot()}) {
    for (size_t width = 0; width <= 130; width++) {
      for (size_t height = 0; height <= 30; height++) {
        for (const bool unicode : {true, false}) {
          const std::vector<TopLine> lines = TopFrame(top, {width, height, unicode});
          ASSERT_LE(lines.size(), height);
          for (const TopLine& line : lines) {
            ASSERT_LE(Columns(line), width) << PlainText(line);
            for (const char c : PlainText(line)) {
              ASSERT_TRUE(static_cast<unsigned char>(c) >= 0x20 && c != 0x7f) << "a control";
              if (!unicode) {
                ASSERT_LT(static_cast<unsigned char>(c), 0x80);
              }
            }
          }
        }
      }
    }
  }
}

TEST(TopFrame, SaysAllOfItAt80And100And200Columns) {
  for (const size_t width : {80u, 100u, 200u}) {
    SCOPED_TRACE(width);
    const std::string text = Text(TopFrame(Snapshot(), {width, 40, false}));
    for (const char* words :
         {"tandem top router-1 at 127.0.0.1:9300  ready", "queued 5", "sequences 6",
          "tok/s out 100", "$/Mtok in", "takes 4 s here", "attention", "60.0%", "20.0%", "75.0%",
          "handoff 20.0%, no_work 20.0%", "2 x emulated/h100-x8", "2 of 2 ready", "WORKER",
          "attention-1", "ffn-0", "waiting_f", "q quit"}) {
      EXPECT_TRUE(absl::StrContains(text, words)) << words << "\n" << text;
    }
    EXPECT_TRUE(absl::StrContains(text, width == 80 ? "#####" : "##########")) << text;
  }
}

TEST(TopFrame, ABarIsAsLongAsItsShares) {
  TopSnapshot top = Snapshot(1);
  top.pools.resize(1);
  top.workers.clear();
  for (const TopLine& line : TopFrame(top, {141, 40, false})) {
    if (PlainText(line).rfind("attention ", 0) != 0) continue;
    // 60 columns: 0.6, 0.2, 0.2.
    EXPECT_EQ(line[1].text, std::string(36, '#'));
    EXPECT_EQ(line[2].text, std::string(12, '='));
    EXPECT_EQ(line[3].text, std::string(12, '.'));
    return;
  }
  FAIL() << "no line of the pool";
}

TEST(TopFrame, ALostRouterIsSaidAboveItsLastWord) {
  TopSnapshot top = Snapshot();
  top.lost = "router at 127.0.0.1:9300: connection refused";
  top.lost_seconds = 12;
  const std::string text = Text(TopFrame(top, {80, 24}));
  EXPECT_TRUE(absl::StrContains(text, "NO ANSWER for 12 s")) << text;
  EXPECT_TRUE(absl::StrContains(text, "connection refused")) << text;
  EXPECT_TRUE(absl::StrContains(text, "attention")) << "its last word stays";
}

TEST(TopFrame, LatencyIsSaidOrWhyThereIsNone) {
  TopSnapshot top = Snapshot();
  top.latency.why_not = "no gateway is connected";
  EXPECT_TRUE(absl::StrContains(Text(TopFrame(top, {})), "TTFT, TPOT no gateway is connected"));
  top.latency = {};
  top.latency.window_seconds = 10;
  EXPECT_TRUE(absl::StrContains(Text(TopFrame(top, {})), "no request finished in the last 10 s"));
  top.latency.requests = 12;
  top.latency.ttft_mean = 0.02;
  top.latency.ttft_p99 = 0.04;
  top.latency.tpot_mean = 0.0043;
  top.latency.itl_p99 = 0.01;
  top.latency.gateways = 2;
  top.latency.gateways_silent = 1;
  const std::string text = Text(TopFrame(top, {100, 40}));
  for (const char* words : {"TTFT mean 20 ms", "p99 <= 40 ms", "TPOT mean 4.3 ms",
                            "gap p99 <= 10 ms", "1 of 2 gateways do not answer"}) {
    EXPECT_TRUE(absl::StrContains(text, words)) << words << "\n" << text;
  }
}

TEST(TopFrame, WorkersGiveWayFirst) {
  const std::string text = Text(TopFrame(Snapshot(40), {80, 24}));
  EXPECT_TRUE(absl::StrContains(text, "... and ")) << text;
  EXPECT_TRUE(absl::StrContains(text, "q quit")) << text;
  const std::string tiny = Text(TopFrame(Snapshot(40), {80, 3}));
  EXPECT_TRUE(absl::StrContains(tiny, "tandem top")) << tiny;
}

}  // namespace
}  // namespace tandem::ctl
