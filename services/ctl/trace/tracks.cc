#include "services/ctl/trace/tracks.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <map>
#include <numeric>
#include <tuple>

namespace tandem::ctl {
namespace {

enum Row : uint32_t { kState = 1, kStep, kPrefill, kAttention, kFfn, kFirstLane };

// The fixed row of a kind; kFirstLane: it has lanes.
Row RowOf(v1::SpanKind kind) {
  switch (kind) {
    case v1::SPAN_KIND_WAIT:
      return kState;
    case v1::SPAN_KIND_STEP:
      return kStep;
    case v1::SPAN_KIND_PREFILL:
      return kPrefill;
    case v1::SPAN_KIND_EMBED:
    case v1::SPAN_KIND_ATTENTION:
    case v1::SPAN_KIND_HEAD:
      return kAttention;
    case v1::SPAN_KIND_FFN:
      return kFfn;
    default:
      return kFirstLane;
  }
}

using LaneKey = std::tuple<v1::SpanKind, uint32_t, uint32_t>;  // kind, peer, micro-batch

// Lanes of one key, each with the end of its last span.
struct Lanes {
  std::vector<int64_t> busy_until_ns;
  std::vector<uint32_t> track;
};

std::string LaneName(const WorkerTrace& worker, const TracedSpan& span, size_t lane) {
  const std::string peer =
      span.peer < worker.peers.size() ? worker.peers[span.peer] : std::string("an unknown worker");
  std::string name;
  if (span.kind == v1::SPAN_KIND_A2F) {
    name = absl::StrCat("A2F/F2A mb ", span.micro_batch, ", ", peer);
  } else if (span.kind == v1::SPAN_KIND_SERVED) {
    name = absl::StrCat("calls of ", peer, " mb ", span.micro_batch);
  } else {
    name = absl::StrCat("KV to ", peer);
  }
  return lane == 0 ? name : absl::StrCat(name, " (", lane + 1, ")");
}

// The lane that is free when the span begins; a new one, or past the bound the last.
uint32_t TakeLane(const WorkerTrace& worker, const TracedSpan& span, Lanes& lanes,
                  size_t& lanes_in_all, std::vector<Track>& tracks) {
  size_t lane = 0;
  while (lane < lanes.track.size() && lanes.busy_until_ns[lane] > span.begin_ns) lane++;
  if (lane == lanes.track.size()) {
    if (lanes_in_all == kMaxLanes) {
      return lane > 0 ? lanes.track.back() : static_cast<uint32_t>(tracks.size() - 1);
    }
    lanes_in_all++;
    lanes.busy_until_ns.push_back(0);
    lanes.track.push_back(static_cast<uint32_t>(tracks.size()));
    tracks.push_back({0, LaneName(worker, span, lane)});
  }
  lanes.busy_until_ns[lane] = span.end_ns;
  return lanes.track[lane];
}

}  // namespace

Tracks TracksOf(const WorkerTrace& worker) {
  Tracks result;
  std::vector<Track>& tracks = result.tracks;
  tracks = {{kState, "device state"}};
  if (worker.stages.contains(Stage::kAttention)) tracks.push_back({kStep, "steps"});
  if (worker.stages.contains(Stage::kPrefill)) tracks.push_back({kPrefill, "prefill"});
  if (worker.stages.contains(Stage::kAttention)) tracks.push_back({kAttention, "attention"});
  if (worker.stages.contains(Stage::kFfn)) tracks.push_back({kFfn, "ffn"});
  const size_t fixed = tracks.size();

  std::vector<size_t> by_begin(worker.spans.size());
  std::iota(by_begin.begin(), by_begin.end(), 0);
  std::stable_sort(by_begin.begin(), by_begin.end(), [&](size_t a, size_t b) {
    return worker.spans[a].begin_ns < worker.spans[b].begin_ns;
  });
  result.of_span.resize(worker.spans.size());
  std::map<LaneKey, Lanes> lanes;
  size_t lanes_in_all = 0;
  for (const size_t i : by_begin) {
    const TracedSpan& span = worker.spans[i];
    const Row row = RowOf(span.kind);
    if (row == kFirstLane) {
      result.of_span[i] = TakeLane(worker, span, lanes[{span.kind, span.peer, span.micro_batch}],
                                   lanes_in_all, tracks);
      continue;
    }
    // A span of a stage that the worker does not claim to run is drawn with its waits.
    const auto found = std::find_if(tracks.begin(), tracks.begin() + static_cast<ptrdiff_t>(fixed),
                                    [&](const Track& track) { return track.id == row; });
    result.of_span[i] = found == tracks.begin() + static_cast<ptrdiff_t>(fixed)
                            ? 0
                            : static_cast<uint32_t>(found - tracks.begin());
  }
  // The order of lanes from top to bottom: by kind, peer and micro-batch.
  uint32_t next = kFirstLane;
  for (const auto& [key, of_key] : lanes) {
    for (const uint32_t track : of_key.track) tracks[track].id = next++;
  }
  return result;
}

}  // namespace tandem::ctl
