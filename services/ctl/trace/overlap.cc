#include "services/ctl/trace/overlap.h"

#include <algorithm>
#include <cstdint>
#include <vector>

namespace tandem::ctl {
namespace {

struct Edge {
  int64_t at_ns = 0;
  int attention = 0, ffn = 0;  // +1: one more computes it, -1: one less
};

}  // namespace

Overlap OverlapOf(absl::Span<const WorkerTrace> workers, absl::Span<const WorkerClock> clocks) {
  std::vector<Edge> edges;
  for (size_t i = 0; i < workers.size(); i++) {
    for (const TracedSpan& span : workers[i].spans) {
      if (!IsCompute(span.kind) || span.kind == v1::SPAN_KIND_PREFILL) continue;
      const int ffn = span.kind == v1::SPAN_KIND_FFN ? 1 : 0;
      edges.push_back({span.begin_ns + clocks[i].offset_ns, 1 - ffn, ffn});
      edges.push_back({span.end_ns + clocks[i].offset_ns, ffn - 1, -ffn});
    }
  }
  std::sort(edges.begin(), edges.end(),
            [](const Edge& a, const Edge& b) { return a.at_ns < b.at_ns; });
  Overlap overlap;
  int attention = 0, ffn = 0;
  int64_t since_ns = 0;
  for (const Edge& edge : edges) {
    const double seconds = static_cast<double>(edge.at_ns - since_ns) * 1e-9;
    if (attention > 0) overlap.attention_seconds += seconds;
    if (ffn > 0) overlap.ffn_seconds += seconds;
    if (attention > 0 && ffn > 0) overlap.both_seconds += seconds;
    attention += edge.attention;
    ffn += edge.ffn;
    since_ns = edge.at_ns;
  }
  return overlap;
}

}  // namespace tandem::ctl
