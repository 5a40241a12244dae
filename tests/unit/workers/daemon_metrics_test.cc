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

TEST_F(WorkerMetrics, ElapsedSecondsAreTheClocksAndNotTheLedgers) {
  time_.Advance(Duration::Seconds(5));
  ExpectLine(Scrape(),
             std::string("tandem_device_elapsed_seconds_total{") + kBase + ",worker=\"a0\"} 5");
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
