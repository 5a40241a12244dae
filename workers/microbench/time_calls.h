#pragma once

// What a backend's calls take on this machine, one kind and size after the other: alone, in turns
// with a neighbour that computes the other stage, and while it does, as workers that share a
// machine do.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <array>
#include <cstdint>
#include <functional>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/cost/timed_call.h"
#include "workers/backend/stage_backend.h"

namespace tandem {

struct TimingPlan {
  std::vector<uint32_t> rows;          // of decode calls, >= 1
  std::vector<uint32_t> contexts;      // positions that each attention row attends to, >= 1
  std::vector<uint32_t> chunk_rows;    // of prefill chunks
  std::vector<uint32_t> chunk_firsts;  // positions of the prompt before the chunk
  uint32_t rounds = 9;                 // each times every call once; one more goes before, untimed
};

// The calls of a plan, each once.
std::vector<cost::CallShape> ShapesOf(const TimingPlan& plan);
// KV blocks that the largest of them needs.
uint32_t BlocksFor(const TimingPlan& plan, uint32_t block_tokens);

// What else the machine does.
enum class Pattern {
  kAlone,  // nothing: call follows call on one thread, as on a worker of all stages
  // Between two calls the neighbour computes the other stage's, while this thread sleeps: what a
  // split worker sees whose micro-batch is away. Caches are colder then, and the core has slept.
  kTurns,
  kContended,  // the neighbour computes the other stage without end
};
inline constexpr std::array<Pattern, 3> kAllPatterns = {Pattern::kAlone, Pattern::kTurns,
                                                        Pattern::kContended};
absl::string_view PatternName(Pattern pattern);  // "alone", "turns", "contended"

// One call's times over the rounds. A time is the mean of a pass through all layers.
struct CallTiming {
  cost::CallShape shape;
  Pattern pattern = Pattern::kAlone;
  double seconds = 0;  // median
  // Between the quartiles, over the median: what the machine did to the same work.
  double spread = 0;
};

// Times calls on `device`; where `neighbour` is not null also in turns with it and beside it, on a
// thread of its own: it computes FFN calls (for a measured FFN: attention calls). A prefill chunk
// has no turns: it follows on itself. Both hold every stage, and BlocksFor KV blocks of
// `block_tokens`. All patterns are seen within each round, so that they meet the machine as it is
// then. `progress` is called after each round with its number, from 0.
absl::StatusOr<std::vector<CallTiming>> TimeCalls(StageBackend& device, StageBackend* neighbour,
                                                  uint32_t block_tokens, const TimingPlan& plan,
                                                  const TimeSource& time,
                                                  const std::function<void(uint32_t)>& progress);

// Runs `what` while `neighbour` computes FFN calls on another thread.
absl::Status WhileNeighbourComputes(StageBackend& neighbour, uint32_t block_tokens,
                                    const std::function<absl::Status()>& what);

// Bytes a second that one thread reads of memory that is not in its L2 cache.
double ReadBandwidth(const TimeSource& time);

// The middle of `values` (not empty), and the distance of the quartiles over it.
struct MedianSpread {
  double median = 0, spread = 0;
};
MedianSpread MedianOf(std::vector<double> values);

}  // namespace tandem
