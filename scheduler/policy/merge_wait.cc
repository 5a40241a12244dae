#include "scheduler/policy/merge_wait.h"

#include <algorithm>

namespace tandem::policy {

Instant MergeUntil(const MergeView& call, Duration max_wait) {
  if (call.rows == 0 || call.other_rows_queued || max_wait <= Duration()) return call.arrival;
  const bool expected =
      std::any_of(call.expected.begin(), call.expected.end(), [&](const ExpectedCall& other) {
        return other.layer == call.layer && other.at <= call.arrival + max_wait &&
               call.arrival <= other.at + max_wait;
      });
  return expected ? call.arrival + max_wait : call.arrival;
}

}  // namespace tandem::policy
