// What a span costs the device's thread: its clock read and its six words in the ring, alone and
// while a reader takes them as `tandemctl trace` does.
//
//   trace_bench [spans]
// prints nanoseconds a span, the median of runs, and the share of one core at 100,000 spans a
// second; exit status 1 if that is over 1 %.

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <thread>
#include <vector>

#include "services/runtime/mutex.h"
#include "services/runtime/real_time.h"
#include "workers/backend/device_timeline.h"
#include "workers/trace/trace_log.h"

namespace tandem {
namespace {

constexpr int kRuns = 15;
constexpr double kSpansPerSecond = 100'000;
constexpr double kTargetShare = 0.01;

double ThreadSeconds() {
  timespec at{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &at);
  return static_cast<double>(at.tv_sec) + static_cast<double>(at.tv_nsec) * 1e-9;
}

// CPU nanoseconds of the writer's thread for each of `spans`.
double Run(TraceLog& log, const DeviceTimeline* line, uint64_t spans) {
  Span span{.kind = SpanKind::kAttention, .peer = 0, .rows = 64};
  const double begin = ThreadSeconds();
  for (uint64_t i = 0; i < spans; i++) {
    span.step = i >> 6;
    span.layer = i & 63;
    span.begin = span.end;
    span.end = line != nullptr ? line->Now() : Instant::FromNanoseconds(static_cast<int64_t>(i));
    log.Add(span);
  }
  return (ThreadSeconds() - begin) * 1e9 / static_cast<double>(spans);
}

double Median(TraceLog& log, const DeviceTimeline* line, uint64_t spans) {
  std::vector<double> runs;
  for (int i = 0; i < kRuns; i++) runs.push_back(Run(log, line, spans));
  std::nth_element(runs.begin(), runs.begin() + kRuns / 2, runs.end());
  return runs[kRuns / 2];
}

// Copies the ring every 20 ms until it is told to stop.
class Reader {
 public:
  explicit Reader(const TraceLog& log) : thread_([this, &log] { Loop(log); }) {}
  ~Reader() {
    {
      MutexLock lock(mu_);
      stop_ = true;
    }
    changed_.NotifyAll();
    thread_.join();
  }

 private:
  void Loop(const TraceLog& log) {
    uint64_t mark = 0;
    std::vector<Span> spans;
    MutexLock lock(mu_);
    while (!stop_) {
      spans.clear();
      log.ring().Read(mark, kTraceSpans, spans);
      changed_.WaitFor(lock, std::chrono::milliseconds(20));
    }
  }

  Mutex mu_;
  CondVar changed_;
  bool stop_ TANDEM_GUARDED_BY(mu_) = false;
  std::thread thread_;
};

int Main(uint64_t spans) {
  RealTimeSource time;
  const MachineTimeline line(time);
  TraceLog log;
  const double alone = Median(log, nullptr, spans);
  const double with_clock = Median(log, &line, spans);
  double read = 0;
  {
    Reader reader(log);
    read = Median(log, &line, spans);
  }
  const double worst = std::max(with_clock, read);
  const double share = worst * 1e-9 * kSpansPerSecond;
  std::printf(
      "span into the ring: %.1f ns; with a clock read: %.1f ns; while it is read: %.1f ns\n", alone,
      with_clock, read);
  std::printf("at %.0f spans a second: %.3f %% of a core (target: below %.0f %%)\n",
              kSpansPerSecond, 100 * share, 100 * kTargetShare);
  return share < kTargetShare ? 0 : 1;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) {
  return tandem::Main(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 2'000'000);
}
