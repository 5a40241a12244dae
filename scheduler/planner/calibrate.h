#pragma once

// A chip's figures from its own timed calls: the constants of scheduler/cost's formula, ((mem^p +
// compute^p)^(1/p) + t0), that forecast what was measured.

#include <absl/status/statusor.h>

#include <cstdint>
#include <vector>

#include "scheduler/cost/timed_call.h"
#include "scheduler/model/chip.h"
#include "scheduler/model/model_shape.h"

namespace tandem::planner {

// Fewest sizes that must have been timed: rows of each kind of call, and positions of attention.
// With one size, a fixed time and a rate cannot be told apart.
inline constexpr size_t kLeastSizes = 2;

// What is known before the fit. The efficiencies are fitted over these: their product counts.
struct Peaks {
  double bytes_per_s = 0;  // of a memory benchmark
  double flops = 0;        // a second, of the quickest call
};

// How far the fitted formula is off one kind of call: (forecast - measured) / measured.
struct KindError {
  cost::CallKind kind = cost::CallKind::kAttention;
  size_t calls = 0;
  double median = 0;  // of the absolute errors
  double worst = 0;   // the largest of them, with its sign
  double bias = 0;    // mean, with sign: what a step's sum is off by
  cost::CallShape worst_call;
};

struct Calibration {
  model::DtypeFigures figures;  // values only; marks and sources are the caller's
  Peaks peaks;
  std::vector<KindError> errors;  // of the kinds that were timed
  double rms_log_error = 0;       // of all calls, each kind by its part
};

// The quickest rate of any call.
double BestFlops(const model::ModelShape& shape, const model::Precision& precision,
                 const std::vector<cost::TimedCall>& calls);

// Least squares of log(forecast / measured) over η, µ, t0, prefill's µ and t0, for each p of 1, 2,
// 4 and max; the p that fits best. A kind of call counts by its part of the time of all kinds, with
// every layer's calls, so that a step's sum comes out right where one rate cannot suit all kinds.
// Levenberg-Marquardt from several starts (Eigen's MINPACK port); the forecasts are CostTable's.
//   calls  of one chip, weights of `precision`: prefill, and one kind of a decode step's or more
// kInvalidArgument, with the numbers: a time that is not positive, no call of a step or none of a
// prompt, too few sizes of a kind (kLeastSizes), peaks that are none.
absl::StatusOr<Calibration> Calibrate(const model::ModelShape& shape,
                                      const model::Precision& precision, const Peaks& peaks,
                                      const std::vector<cost::TimedCall>& calls);

// A link from round trips of messages of equal size each way: half of a round trip is latency +
// bytes / bytes_per_s. Theil-Sen: the median of the slopes between all pairs, then of what they
// leave, so that one disturbed size moves neither.
struct RoundTrip {
  uint64_t bytes = 0;  // one way
  double seconds = 0;  // there and back
};
struct LinkFit {
  double latency_seconds = 0, bytes_per_s = 0;
  double worst = 0;  // (forecast - measured) / measured of the round trip that is furthest off
};
// kInvalidArgument: fewer than kLeastSizes sizes, or a time that is not positive.
absl::StatusOr<LinkFit> FitLink(const std::vector<RoundTrip>& trips);

}  // namespace tandem::planner
