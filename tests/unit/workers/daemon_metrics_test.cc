// What a worker exports: names, labels and values, as a scrape sees them.

#include <gtest/gtest.h>
#include <prometheus/text_serializer.h>

#include <memory>
#include <string>

#include "tests/fakes/manual_time.h"
#include "workers/daemon/metrics.h"

namespace tandem {
namespace {

class WorkerMetrics : public ::testing::Test {
 protected:
  WorkerMetrics() {
    worker_.id = WorkerId("a0");
    worker_.pool = "attention";
    worker_.model = "m";
    worker_.memory_class = MemoryClass::kSram;
    worker_.capacity.kv_blocks = 100;
    worker_.capacity.block_tokens = 16;
    worker_.stages = {Stage::kAttention};
    backend_.attention_bytes = 16657920;
    report_.load = {
        .kv_blocks_free = 75, .sequences = 3, .prefills = 1, .tokens_total = 42, .draining = false};
    report_.ledger.cells = {{ledger::LedgerStage::kAttention, ledger::LedgerState::kBusy,
                             ledger::Cause::kNone, Duration::Milliseconds(1500)},
                            {ledger::LedgerStage::kAttention, ledger::LedgerState::kStall,
                             ledger::Cause::kHandoff, Duration::Milliseconds(500)}};
    registry_ = MakeWorkerMetrics(
        worker_, backend_, time_, time_.Now(), /*line=*/nullptr, [this] { return report_; },
        [this] { return streams_; });
  }
  std::string Scrape() { return prometheus::TextSerializer().Serialize(registry_->Collect()); }
  void ExpectLine(const std::string& text, const std::string& line) {
    EXPECT_NE(("\n" + text).find("\n" + line + "\n"), std::string::npos) << line << "\nis not in\n"
                                                                         << text;
  }

  test::ManualTime time_;
  WorkerDescription worker_;
  BackendInfo backend_;
  WorkerReport report_;
  StreamCounts streams_;
  std::shared_ptr<prometheus::Registry> registry_;
};

constexpr char kBase[] = "memory_class=\"sram\",model_name=\"m\",pool=\"attention\"";

TEST_F(WorkerMetrics, LedgerCellsCarryStageStateAndCause) {
  const std::string text = Scrape();
  ExpectLine(text, std::string("tandem_stage_seconds_total{cause=\"\",") + kBase +
                       ",stage=\"attention\",state=\"busy\",worker=\"a0\"} 1.5");
  ExpectLine(text, std::string("tandem_stage_seconds_total{cause=\"handoff\",") + kBase +
                       ",stage=\"attention\",state=\"stall\",worker=\"a0\"} 0.5");
}

// Goal: what a scrape saw as waiting for work was busy, as it turns out, on a device whose time
// line the host followed late. Counters cannot fall, and their sum is the elapsed time all the
// same.
TEST_F(WorkerMetrics, TheStatesSumToElapsedThoughAWaitTurnsOutShorter) {
  using ledger::Cause;
  using ledger::LedgerState;
  const auto tell = [&](int64_t busy_ms, int64_t no_work_ms) {
    constexpr ledger::LedgerStage kStage = ledger::LedgerStage::kAttention;
    report_.ledger.cells = {
        {kStage, LedgerState::kBusy, Cause::kNone, Duration::Milliseconds(busy_ms)},
        {kStage, LedgerState::kIdle, Cause::kNoWork, Duration::Milliseconds(no_work_ms)}};
    return Scrape();
  };
  const auto line = [&](const std::string& state, const std::string& cause,
                        const std::string& seconds) {
    return "tandem_stage_seconds_total{cause=\"" + cause + "\"," + kBase +
           ",stage=\"attention\",state=\"" + state + "\",worker=\"a0\"} " + seconds;
  };
  std::string text = tell(500, 1000);
  ExpectLine(text, line("idle", "no_work", "1"));
  text = tell(1000, 750);
  ExpectLine(text, line("idle", "no_work", "1"));
  ExpectLine(text, line("busy", "", "0.75"));
  text = tell(1500, 1000);
  ExpectLine(text, line("idle", "no_work", "1"));
  ExpectLine(text, line("busy", "", "1.5"));
}

// Goal: increase() misses nothing: it cannot see what a counter brought with it when it appeared.
TEST_F(WorkerMetrics, EveryCellOfTheLedgerIsThereFromTheStart) {
  report_.ledger.cells.clear();
  const std::string text = Scrape();
  for (const char* cause : {"handoff", "peer_queue", "peer_compute", "kv_transfer", "batch_wait"}) {
    ExpectLine(text, std::string("tandem_stage_seconds_total{cause=\"") + cause + "\"," + kBase +
                         ",stage=\"attention\",state=\"stall\",worker=\"a0\"} 0");
  }
  for (const char* cause : {"no_work", "starved", "starting", "draining"}) {
    ExpectLine(text, std::string("tandem_stage_seconds_total{cause=\"") + cause + "\"," + kBase +
                         ",stage=\"attention\",state=\"idle\",worker=\"a0\"} 0");
  }
  ExpectLine(text, std::string("tandem_stage_seconds_total{cause=\"\",") + kBase +
                       ",stage=\"attention\",state=\"busy\",worker=\"a0\"} 0");
  EXPECT_EQ(text.find("down"), std::string::npos) << "the router books that";
}

TEST_F(WorkerMetrics, ADeviceOfSeveralStagesWaitsAsShared) {
  report_.ledger.cells.clear();
  worker_.stages = {Stage::kPrefill, Stage::kAttention};
  registry_ = MakeWorkerMetrics(
      worker_, backend_, time_, time_.Now(), nullptr, [this] { return report_; },
      [this] { return streams_; });
  const std::string text = Scrape();
  for (const char* stage : {"prefill", "attention"}) {
    ExpectLine(text, std::string("tandem_stage_seconds_total{cause=\"\",") + kBase + ",stage=\"" +
                         stage + "\",state=\"busy\",worker=\"a0\"} 0");
  }
  ExpectLine(text, std::string("tandem_stage_seconds_total{cause=\"no_work\",") + kBase +
                       ",stage=\"shared\",state=\"idle\",worker=\"a0\"} 0");
  EXPECT_EQ(text.find("stage=\"ffn\",state"), std::string::npos);
}

// Goal: routers that know vLLM, and OpenCost, find the series that they look for.
TEST_F(WorkerMetrics, RequestsAreToldUnderVllmsNames) {
  report_.running = 2;
  report_.waiting = 1;
  report_.load.prompt_tokens_total = 70;
  report_.counters.prefills.Add(kRequestBuckets, 0.25);
  report_.counters.token_gaps.Add(kTokenBuckets, 0.02);
  report_.counters.token_gaps.Add(kTokenBuckets, 0.025);  // on a bound: below it
  const std::string at = std::string("{") + kBase + ",worker=\"a0\"} ";
  std::string text = Scrape();
  ExpectLine(text, "vllm:num_requests_running" + at + "2");
  ExpectLine(text, "vllm:num_requests_waiting" + at + "1");
  ExpectLine(text, "vllm:kv_cache_usage_perc" + at + "0.25");
  ExpectLine(text, "vllm:prompt_tokens_total" + at + "70");
  ExpectLine(text, "vllm:generation_tokens_total" + at + "42");
  ExpectLine(text, "vllm:request_prefill_time_seconds_sum" + at + "0.25");
  ExpectLine(text, "vllm:time_per_output_token_seconds_sum" + at + "0.045");
  ExpectLine(text, std::string("vllm:time_per_output_token_seconds_bucket{") + kBase +
                       ",worker=\"a0\",le=\"0.01\"} 0");
  ExpectLine(text, std::string("vllm:time_per_output_token_seconds_bucket{") + kBase +
                       ",worker=\"a0\",le=\"0.025\"} 2");
  ExpectLine(text,
             "vllm:cache_config_info{block_size=\"16\",memory_class=\"sram\",model_name=\"m\","
             "num_gpu_blocks=\"100\",pool=\"attention\",worker=\"a0\"} 1");
  report_.counters.token_gaps.Add(kTokenBuckets, 0.5);
  text = Scrape();  // what was told is not told again
  ExpectLine(text, "vllm:time_per_output_token_seconds_count" + at + "3");
  ExpectLine(text, "vllm:request_prefill_time_seconds_count" + at + "1");
}

TEST_F(WorkerMetrics, AnFfnWorkerHoldsNoRequests) {
  worker_.stages = {Stage::kFfn};
  registry_ = MakeWorkerMetrics(
      worker_, backend_, time_, time_.Now(), nullptr, [this] { return report_; },
      [this] { return streams_; });
  EXPECT_EQ(Scrape().find("vllm:"), std::string::npos);
}

TEST_F(WorkerMetrics, LeakedKvShows) {
  report_.kv_blocks_leaked = 3;
  ExpectLine(Scrape(),
             std::string("tandem_worker_kv_blocks_leaked{") + kBase + ",worker=\"a0\"} 3");
}

TEST_F(WorkerMetrics, ElapsedSecondsAreTheClocksAndNotTheLedgers) {
  time_.Advance(Duration::Seconds(5));
  ExpectLine(Scrape(),
             std::string("tandem_device_elapsed_seconds_total{") + kBase + ",worker=\"a0\"} 5");
}

// Goal: a scrape that the host holds up between its two clocks does not look like a wrong account.
TEST_F(WorkerMetrics, AReportThatTookLongIsAskedForAgain) {
  int asked = 0;
  registry_ = MakeWorkerMetrics(
      worker_, backend_, time_, time_.Now(), nullptr,
      [&] {
        if (++asked < 3) time_.Advance(Duration::Milliseconds(20));
        return report_;
      },
      [this] { return streams_; });
  Scrape();
  EXPECT_EQ(asked, 3);
}

TEST_F(WorkerMetrics, EachScrapeShowsTheReportOfItsMoment) {
  ExpectLine(Scrape(), std::string("tandem_worker_tokens_total{") + kBase + ",worker=\"a0\"} 42");
  report_.load.tokens_total = 50;
  report_.load.kv_blocks_free = 50;
  report_.counters.calls_resent = 2;
  streams_.handoff_replies_mismatched = 1;
  report_.counters.replies_dropped = 3;
  const std::string text = Scrape();
  const auto line = [](const std::string& name) { return name + "{" + kBase + ",worker=\"a0\"} "; };
  ExpectLine(text, line("tandem_worker_tokens_total") + "50");
  ExpectLine(text, line("tandem_worker_kv_cache_usage_ratio") + "0.5");
  ExpectLine(text, line("tandem_worker_handoff_calls_resent_total") + "2");
  ExpectLine(text, line("tandem_worker_handoff_replies_dropped_total") + "4");
  ExpectLine(text, std::string("tandem_worker_loaded_weight_bytes{") + kBase +
                       ",stage=\"attention\",worker=\"a0\"} 16657920");
}

}  // namespace
}  // namespace tandem
