#pragma once

// What an attention worker measured of its calls, by rows: from it K is chosen.

#include <cstdint>
#include <map>
#include <optional>

#include "scheduler/base/time.h"
#include "scheduler/cost/cycle.h"

namespace tandem::policy {

// A measurement older than this is forgotten, so that what was slow once is tried again: contexts
// grow, other workers come and go. One step in so many is then not the best one.
inline constexpr uint64_t kForgetSteps = 512;

// The mean time of one kind of call, by rows. Each step counts as one sample: the mean of its
// calls.
class TimeByRows {
 public:
  void Add(uint32_t rows, Duration took);
  // Takes the calls added since as step `step`'s sample, and forgets what is too old.
  void EndStep(uint64_t step);
  bool empty() const { return means_.empty(); }
  // Of a call of `rows`: as measured, or from its measured neighbours in a straight line. Outside
  // of them it errs on the short side, so that a size that might be better is tried: in proportion
  // below the smallest, no longer than the largest above it. Requires !empty().
  Duration At(uint32_t rows) const;

 private:
  struct Sum {
    double seconds = 0;
    uint32_t calls = 0;
  };
  struct Mean {
    double seconds = 0;
    uint64_t step = 0;  // of the last sample
  };
  std::map<uint32_t, Sum> step_;    // by rows, of the running step
  std::map<uint32_t, Mean> means_;  // by rows
};

class CallTimes {
 public:
  // One layer's attention of `rows` rows; embedding is not part of it.
  void AddAttention(uint32_t rows, Duration took) { attention_.Add(rows, took); }
  // One layer's FFN call: the holder's compute, and the rest of the round trip but its queue.
  void AddFfn(uint32_t rows, Duration compute, Duration transfer);
  // Last norm, output matrix and sampling of `rows` rows.
  void AddHead(uint32_t rows, Duration took) { head_.Add(rows, took); }
  void EndStep();

  // A step of `rows` rows in K micro-batches, by cost::StepTime with the size of its largest.
  // nullopt: some kind of call was never measured.
  std::optional<Duration> Step(uint32_t rows, uint32_t micro_batches, uint32_t layers) const;

 private:
  uint64_t steps_ = 0;
  TimeByRows attention_, ffn_, transfer_, head_;
};

}  // namespace tandem::policy
