#include "scheduler/policy/batch_join.h"

#include <algorithm>
#include <numeric>

namespace tandem::policy {

std::vector<size_t> JoinStep(absl::Span<const JoinCandidate> candidates, uint32_t max_batch) {
  std::vector<size_t> rows(candidates.size());
  std::iota(rows.begin(), rows.end(), size_t{0});
  std::sort(rows.begin(), rows.end(),
            [&](size_t a, size_t b) { return candidates[a].admitted < candidates[b].admitted; });
  if (rows.size() > max_batch) rows.resize(max_batch);
  return rows;
}

}  // namespace tandem::policy
