#pragma once

// Where each span of a worker is drawn: the rows ("threads") of its device. Pure.

#include <absl/types/span.h>

#include <cstdint>
#include <string>
#include <vector>

#include "services/ctl/trace/worker_trace.h"

namespace tandem::ctl {

// A row in which spans follow each other or contain each other, as viewers want them.
struct Track {
  uint32_t id = 0;  // unique within the worker; the order from top to bottom
  std::string name;
};

struct Tracks {
  std::vector<Track> tracks;
  std::vector<uint32_t> of_span;  // index into `tracks`, by span
};

// One track for the device's waits, one for each stage that it runs, one for steps, and for what is
// on its way at the same time (calls, KV rows) one for each peer and micro-batch, more where they
// overlap; at most kMaxLanes of those.
inline constexpr size_t kMaxLanes = 1024;
Tracks TracksOf(const WorkerTrace& worker);

}  // namespace tandem::ctl
