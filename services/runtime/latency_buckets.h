#pragma once

// Histogram buckets, and a histogram as plain numbers. The bounds are vLLM's
// (vllm/v1/metrics/loggers.py at 005a810), so that the quantiles of its dashboards mean the same
// here, and finer ones below its first, since SRAM devices answer within it (a CS-3 in 0.6 ms a
// token), and between 1 and 2.5 s to the first token: interpolated in so wide a bucket the median
// comes out above that of the whole request, whose buckets are finer there.

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <vector>

namespace tandem {

// Upper bounds, seconds; one more bucket holds what is above the last.
inline constexpr double kTtftBuckets[] = {.001, .005, .01, .02, .04, .06, .08, .1,
                                          .25,  .5,   .75, 1,   1.5, 2,   2.5, 5,
                                          7.5,  10,   20,  40,  80,  160, 640, 2560};
inline constexpr double kTokenBuckets[] = {.0005, .001, .002, .003, .004, .005, .0075, .01, .025,
                                           .05,   .075, .1,   .15,  .2,   .3,   .4,    .5,  .75,
                                           1,     2.5,  5,    7.5,  10,   20,   40,    80};
inline constexpr double kRequestBuckets[] = {.005, .01, .025, .05, .1,  .2,  .3,  .5,   .8,
                                             1,    1.5, 2,    2.5, 5,   10,  15,  20,   30,
                                             40,   50,  60,   120, 240, 480, 960, 1920, 7680};

template <size_t n>
std::vector<double> Boundaries(const double (&bounds)[n]) {
  return {std::begin(bounds), std::end(bounds)};
}

// Observations since the start, by bucket: what a thread that may not block adds to and a report
// carries as a copy. A value on a bound counts below it, as in Prometheus. Not thread-safe.
template <size_t n>
struct LatencyCounts {
  std::array<uint64_t, n + 1> buckets{};  // not cumulative
  double sum_seconds = 0;

  void Add(const double (&bounds)[n], double seconds) {
    buckets[static_cast<size_t>(std::lower_bound(bounds, bounds + n, seconds) - bounds)]++;
    sum_seconds += seconds;
  }
};
using TokenLatencies = LatencyCounts<std::size(kTokenBuckets)>;
using RequestLatencies = LatencyCounts<std::size(kRequestBuckets)>;

}  // namespace tandem
