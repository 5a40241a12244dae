// What the account of a device's time costs its thread: state changes as a decode step makes them.
//
//   ledger_bench [SECONDS]     prints nanoseconds a change, and of a thread at 100,000 a second

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "services/runtime/real_time.h"
#include "workers/engine/device_books.h"

namespace tandem {
namespace {

// Seconds of one state change: a layer call is busy, stall, and the reply that says why.
double SecondsOfAChange(DeviceBooks& books, const TimeSource& time) {
  constexpr int kLayers = 20000;
  const Instant start = time.Now();
  for (int layer = 0; layer < kLayers; layer++) {
    books.EnterBusy(ledger::LedgerStage::kAttention);
    books.EnterWait(ledger::LedgerState::kStall, ledger::Cause::kHandoff);
    books.OnReply(
        {Duration::Microseconds(40), Duration::Microseconds(5), Duration::Microseconds(9)});
  }
  return (time.Now() - start).seconds() / (3 * kLayers);
}

int Main(double seconds) {
  RealTimeSource time;
  MachineTimeline line(time);
  TraceLog trace;  // waits are spans of it
  DeviceBooks books(ledger::LedgerStage::kAttention, time, line, trace);
  std::vector<double> rounds;
  const Instant end = time.Now() + Duration::FromSeconds(seconds);
  while (time.Now() < end) rounds.push_back(SecondsOfAChange(books, time));
  std::sort(rounds.begin(), rounds.end());
  const double median = rounds[rounds.size() / 2];
  std::printf(
      "%.1f ns a change (median of %zu rounds); %.2f %% of a thread at 100,000 changes a second\n",
      median * 1e9, rounds.size(), median * 1e5 * 100);
  return 0;
}

}  // namespace
}  // namespace tandem

int main(int argc, char** argv) { return tandem::Main(argc > 1 ? std::atof(argv[1]) : 3); }
