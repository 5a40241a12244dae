#pragma once

// What one worker's heartbeats said of its device's time, for as long as an hour: a ring of
// cumulative ledgers, and the account of any window that it still covers.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <array>
#include <cstdint>
#include <deque>
#include <optional>

#include "scheduler/base/time.h"
#include "scheduler/ledger/tco.h"

namespace tandem::ledger {

// One sample a second and worker at most: a later one of the same second replaces the earlier.
inline constexpr Duration kSamplePeriod = Duration::Seconds(1);
inline constexpr size_t kMaxSamples = 3600;  // past it the oldest goes
// A device's books and its own clock may differ by this share of elapsed time (DESIGN section 8,
// invariant 3), and by this much that two readings of the clock are apart.
inline constexpr double kLedgerTolerance = 1e-3;
inline constexpr Duration kLedgerSlack = Duration::Milliseconds(10);
inline constexpr Duration kMaxLedgerTime =
    Duration::Seconds(100'000'000);  // three years, of a cell

// Cumulative since the worker's incarnation was started.
struct LedgerReport {
  LedgerSnapshot ledger;
  TokenCounts tokens;
};

// What a window holds of one device: DeviceAccount's part that a history knows.
struct WindowAccount {
  std::vector<LedgerCell> cells;
  Duration elapsed;  // device time, down included
  Duration wall;     // machine time that it covers
  TokenCounts tokens;
};

// Of one worker, over its incarnations. At most kMaxSamples samples of 160 bytes: 0.58 MB. Not
// thread-safe.
class DeviceHistory {
 public:
  // `own_stage` is where the device books its waits; `time_scale` as it registered, 0: real time.
  DeviceHistory(LedgerStage own_stage, double time_scale)
      : own_stage_(own_stage), time_scale_(time_scale) {}

  // Takes what a heartbeat says; the worker is there. kInvalidArgument names the number and changes
  // nothing: negative time, a cell that this device cannot have or has twice, states that do not
  // sum to elapsed; elapsed time or tokens that went back within an incarnation. `now` never goes
  // back.
  absl::Status Add(uint64_t incarnation, const LedgerReport& report, Instant now);
  // The worker's stream ended. `for_good`: it had drained, so its operator took it away and it
  // costs nothing from its last sample on; otherwise it is idle{down} until another incarnation
  // starts.
  void OnGone(bool for_good) { gone_ = for_good ? Gone::kForGood : Gone::kLost; }

  // From `from`, or from when the history begins, to `now`; a live worker's account ends with its
  // last sample. nullopt: nothing of the window is known.
  std::optional<WindowAccount> Over(Instant from, Instant now) const;

  bool lost() const { return gone_ == Gone::kLost; }
  std::optional<Instant> last_sample() const;
  size_t samples() const { return samples_.size(); }

 private:
  static constexpr size_t kCells = 3 + (kCauses - 1);  // busy by stage; waits by cause
  struct Sample {
    Instant at;
    uint64_t incarnation = 0;
    Duration elapsed;
    std::array<Duration, kCells> cells;
    TokenCounts tokens;
    bool final_word = false;  // of an incarnation that was taken away after it
  };
  static_assert(sizeof(Sample) <= 160);
  enum class Gone { kNo, kLost, kForGood };

  // The cells, or why they are none of this device.
  absl::StatusOr<std::array<Duration, kCells>> ToCells(const LedgerSnapshot& ledger) const;
  LedgerReport ToReport(const Sample& sample) const;
  Duration Machine(Duration device) const;
  Duration Device(Duration machine) const;
  Instant OpenedAt(const Sample& sample) const { return sample.at - Machine(sample.elapsed); }
  // Of samples_[first, last), one incarnation's, what lies after `from`.
  void AddRun(size_t first, size_t last, Instant from, WindowAccount& account) const;
  void AddDown(Duration machine, WindowAccount& account) const;

  LedgerStage own_stage_;
  double time_scale_;
  Gone gone_ = Gone::kNo;
  std::deque<Sample> samples_;  // ascending
};

}  // namespace tandem::ledger
