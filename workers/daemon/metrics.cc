#include "workers/daemon/metrics.h"

#include <absl/strings/str_cat.h>
#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>

#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/ledger/tco.h"
#include "services/runtime/latency_buckets.h"
#include "services/runtime/mutex.h"

namespace tandem {
namespace {

using Labels = prometheus::Labels;

class WorkerRegistry final : public prometheus::Registry {
 public:
  WorkerRegistry(const WorkerDescription& worker, const BackendInfo& backend, TimeSource& time,
                 Instant opened, const DeviceTimeline* line, std::function<WorkerReport()> report,
                 std::function<StreamCounts()> streams)
      : labels_(WorkerLabels(worker)),
        stages_(worker.stages),
        capacity_(worker.capacity),
        time_(time),
        started_(opened),
        line_(line),
        report_(std::move(report)),
        streams_(std::move(streams)) {
    SetGauge("tandem_worker_loaded_weight_bytes", "Bytes of the loaded tensors.",
             {{"stage", "attention"}}, backend.attention_bytes);
    SetGauge("tandem_worker_loaded_weight_bytes", "Bytes of the loaded tensors.",
             {{"stage", "ffn"}}, backend.ffn_bytes);
    SetGauge("tandem_worker_loaded_weight_bytes", "Bytes of the loaded tensors.",
             {{"stage", "head"}}, backend.head_bytes);
    MutexLock lock(mu_);
    OpenBooks();
  }

  std::vector<prometheus::MetricFamily> Collect() const override {
    const_cast<WorkerRegistry*>(this)->Update();
    return prometheus::Registry::Collect();
  }

 private:
  void Update() TANDEM_EXCLUDES(mu_) {
    MutexLock lock(mu_);
    const auto [report, now] = ReportOfOneMoment();
    // Counters only rise, and what a scrape saw as waiting may turn out to have been something
    // else.
    const ledger::LedgerSnapshot more = Difference(report.ledger, told_ledger_);
    AddCells(more.cells, told_ledger_.cells);
    for (const ledger::LedgerCell& cell : more.cells)
      Book(cell.stage, cell.cause, cell.time.seconds());
    RaiseCounter("tandem_device_elapsed_seconds_total",
                 "Device seconds since the worker started, by its clock.", {},
                 (now - started_).seconds() / (line_ != nullptr ? line_->time_scale() : 1));
    if (line_ != nullptr) TellEmulation();
    RaiseCounter("tandem_worker_tokens_total", "Tokens emitted.", {},
                 static_cast<double>(report.load.tokens_total));
    SetGauge("tandem_worker_sequences", "Sequences held, in any state.", {}, report.load.sequences);
    SetGauge("tandem_worker_prefills", "Prompts in hand.", {}, report.load.prefills);
    SetGauge("tandem_worker_kv_blocks", "KV blocks of the device.", {}, capacity_.kv_blocks);
    SetGauge("tandem_worker_kv_blocks_free", "KV blocks that nobody holds.", {},
             report.load.kv_blocks_free);
    if (capacity_.kv_blocks > 0) {
      const double used =
          1.0 - static_cast<double>(report.load.kv_blocks_free) / capacity_.kv_blocks;
      SetGauge("tandem_worker_kv_cache_usage_ratio", "Share of the KV blocks in use.", {}, used);
    }
    SetGauge("tandem_worker_draining", "1 while it takes no new work.", {},
             report.load.draining ? 1 : 0);
    SetGauge("tandem_worker_ffn_streams", "Open streams of attention workers.", {},
             report.ffn_streams);
    SetGauge("tandem_worker_ffn_rows_queued", "A2F rows that wait for the device.", {},
             static_cast<double>(report.ffn_rows_queued));
    CountEvents(report.counters, streams_());
    if (stages_.contains(Stage::kAttention) || stages_.contains(Stage::kPrefill))
      TellRequests(report);
  }

  // The report, and the time that the other clock shows: what the ledger is checked against. A
  // thread that was held up in between asks again, so that a busy host looks like no wrong account.
  std::pair<WorkerReport, Instant> ReportOfOneMoment() const {
    constexpr Duration kOneMoment = Duration::Milliseconds(1);
    constexpr int kTries = 10;
    for (int tries = 1;; tries++) {
      const Instant before = time_.Now();
      WorkerReport report = report_();
      const Instant after = time_.Now();
      if (after - before <= kOneMoment || tries == kTries) return {std::move(report), after};
    }
  }

  // `seconds` more.
  void Book(ledger::LedgerStage stage, ledger::Cause cause, double seconds) TANDEM_REQUIRES(mu_) {
    const bool busy = cause == ledger::Cause::kNone;
    const ledger::LedgerState state = busy ? ledger::LedgerState::kBusy : ledger::StateOf(cause);
    CounterOf("tandem_stage_seconds_total",
              "Device seconds by stage, state and cause; the states sum to elapsed time.",
              {{"stage", ledger::ToString(stage)},
               {"state", ledger::ToString(state)},
               {"cause", busy ? "" : ledger::ToString(cause)}})
        .Increment(seconds);
  }

  // Every cell that this device can ever book is there from the start: a counter that appears with
  // its first seconds hides them from increase(), and the states would not sum to elapsed time.
  void OpenBooks() TANDEM_REQUIRES(mu_) {
    const auto of_ledger = [](Stage stage) { return ledger::StageOf({stage}); };
    for (const Stage stage : stages_) Book(of_ledger(stage), ledger::Cause::kNone, 0);
    for (int cause = 1; cause < ledger::kCauses; cause++) {
      if (static_cast<ledger::Cause>(cause) == ledger::Cause::kDown) continue;  // the router's
      Book(ledger::StageOf(stages_), static_cast<ledger::Cause>(cause), 0);
    }
  }

  // Of workers that hold requests: the model-server protocol of the Gateway API inference
  // extension, and what OpenCost asks for, under vLLM's names.
  void TellRequests(const WorkerReport& report) TANDEM_REQUIRES(mu_) {
    SetGauge("tandem_worker_kv_blocks_leaked",
             "KV blocks taken, when last no sequence and no prompt was in hand; above 0 is a bug.",
             {}, report.kv_blocks_leaked);
    SetGauge("vllm:num_requests_running", "Sequences that decode, prompts that compute.", {},
             report.running);
    SetGauge("vllm:num_requests_waiting", "Sequences and prompts in hand that do neither yet.", {},
             report.waiting);
    RaiseHistogram("vllm:request_prefill_time_seconds",
                   "Of a prompt computed here, from its first chunk to its last.",
                   Boundaries(kRequestBuckets), report.counters.prefills);
    if (!stages_.contains(Stage::kAttention)) return;
    const double blocks = std::max(capacity_.kv_blocks, 1u);
    SetGauge("vllm:kv_cache_usage_perc", "Share of the KV blocks in use; 1 is all.", {},
             1.0 - report.load.kv_blocks_free / blocks);
    SetGauge("vllm:cache_config_info", "1; block size and number of KV blocks as labels.",
             {{"block_size", absl::StrCat(capacity_.block_tokens)},
              {"num_gpu_blocks", absl::StrCat(capacity_.kv_blocks)}},
             1);
    RaiseCounter("vllm:prompt_tokens_total",
                 "Prompt tokens of sequences that got their first token here, each prompt once.",
                 {}, static_cast<double>(report.load.prompt_tokens_total));
    RaiseCounter("vllm:generation_tokens_total", "Tokens emitted.", {},
                 static_cast<double>(report.load.tokens_total));
    RaiseHistogram("vllm:time_per_output_token_seconds",
                   "Gap between two tokens of one sequence, here.", Boundaries(kTokenBuckets),
                   report.counters.token_gaps);
  }

  void TellEmulation() TANDEM_REQUIRES(mu_) {
    const EmulationLag lag = line_->lag();
    SetGauge("tandem_emulation_time_scale", "Machine seconds for one of the emulated device's.", {},
             line_->time_scale());
    SetGauge("tandem_emulation_lag_seconds", "How late the host was at the last call's end.", {},
             lag.now.seconds());
    SetGauge("tandem_emulation_lag_max_seconds", "The same, at the worst.", {},
             lag.longest.seconds());
    SetGauge("tandem_emulation_lag_ratio",
             "Lag gained for each second of the emulated device, lately; the host keeps up below "
             "0.02.",
             {}, lag.ratio);
  }

  void CountEvents(const EngineCounters& engine, const StreamCounts& streams) TANDEM_REQUIRES(mu_) {
    const auto count = [this](const char* what, const char* help, uint64_t value) {
      RaiseCounter(absl::StrCat("tandem_worker_", what, "_total"), help, {},
                   static_cast<double>(value));
    };
    count("decode_steps", "Decode steps computed.", engine.steps);
    count("tokens_wasted", "Tokens computed after a Stop.", engine.tokens_wasted);
    count("kv_frames_dropped", "KV frames of unknown reservations, or out of their range.",
          engine.kv_frames_dropped);
    count("kv_frames_malformed", "KV frames that were no frames.", streams.kv_frames_malformed);
    count("handoff_replies_dropped", "F2A replies that no call awaited.",
          engine.replies_dropped + streams.handoff_replies_mismatched);
    count("handoff_calls_malformed", "A2F calls answered as malformed.",
          streams.handoff_calls_malformed);
    count("handoff_calls_resent", "Layer calls sent again after a holder's loss.",
          engine.calls_resent);
    count("ffn_class_crossings",
          "Layer calls that crossed to another numerics class: in another cut than the layer's "
          "before.",
          engine.class_crossings);
    count("ffn_holders_lost", "FFN holders whose stream broke or stalled.", engine.holders_lost);
    count("ffn_calls", "Layer calls computed as an FFN worker.", engine.ffn_calls);
    count("ffn_calls_merged", "Of those, computed together with another.", engine.ffn_merged_calls);
    count("registry_reconnects", "Register streams opened again.", streams.registry_reconnects);
  }

  Labels Merge(Labels labels) const {
    labels.insert(labels_.begin(), labels_.end());
    return labels;
  }
  void SetGauge(const std::string& name, const std::string& help, Labels labels, double value) {
    auto& family = gauges_[name];
    if (family == nullptr) family = &prometheus::BuildGauge().Name(name).Help(help).Register(*this);
    family->Add(Merge(std::move(labels))).Set(value);
  }
  prometheus::Counter& CounterOf(const std::string& name, const std::string& help, Labels labels) {
    auto& family = counters_[name];
    if (family == nullptr)
      family = &prometheus::BuildCounter().Name(name).Help(help).Register(*this);
    return family->Add(Merge(std::move(labels)));
  }
  void RaiseCounter(const std::string& name, const std::string& help, Labels labels, double value) {
    prometheus::Counter& counter = CounterOf(name, help, std::move(labels));
    if (value > counter.Value()) counter.Increment(value - counter.Value());
  }
  template <size_t n>
  void RaiseHistogram(const std::string& name, const std::string& help,
                      const prometheus::Histogram::BucketBoundaries& bounds,
                      const LatencyCounts<n>& counts) TANDEM_REQUIRES(mu_) {
    auto& family = histograms_[name];
    if (family == nullptr)
      family = &prometheus::BuildHistogram().Name(name).Help(help).Register(*this);
    std::vector<double>& told = told_buckets_[name];
    told.resize(n + 1);
    std::vector<double> grown(n + 1);
    for (size_t i = 0; i <= n; i++) {
      const auto count = static_cast<double>(counts.buckets[i]);
      grown[i] = count - std::exchange(told[i], count);
    }
    const double seconds = counts.sum_seconds - std::exchange(told_sums_[name], counts.sum_seconds);
    family->Add(Merge({}), bounds).ObserveMultiple(grown, seconds);
  }

  const Labels labels_;
  const std::set<Stage> stages_;
  const WorkerCapacity capacity_;
  TimeSource& time_;
  const Instant started_;
  const DeviceTimeline* const line_;
  const std::function<WorkerReport()> report_;
  const std::function<StreamCounts()> streams_;
  Mutex mu_;
  std::map<std::string, prometheus::Family<prometheus::Gauge>*> gauges_;
  std::map<std::string, prometheus::Family<prometheus::Counter>*> counters_;
  std::map<std::string, prometheus::Family<prometheus::Histogram>*> histograms_;
  ledger::LedgerSnapshot told_ledger_ TANDEM_GUARDED_BY(mu_);  // the cells that the counters show
  // Of the histograms, what they show.
  std::map<std::string, std::vector<double>> told_buckets_;
  std::map<std::string, double> told_sums_;
};

}  // namespace

prometheus::Labels WorkerLabels(const WorkerDescription& worker) {
  return {{"pool", worker.pool},
          {"worker", worker.id.value()},
          {"memory_class", worker.memory_class == MemoryClass::kSram ? "sram" : "hbm"},
          {"model_name", worker.model}};
}

std::shared_ptr<prometheus::Registry> MakeWorkerMetrics(const WorkerDescription& worker,
                                                        const BackendInfo& backend,
                                                        TimeSource& time, Instant opened,
                                                        const DeviceTimeline* line,
                                                        std::function<WorkerReport()> report,
                                                        std::function<StreamCounts()> streams) {
  return std::make_shared<WorkerRegistry>(worker, backend, time, opened, line, std::move(report),
                                          std::move(streams));
}

}  // namespace tandem
