#pragma once

// What a transfer between two workers takes.

#include <algorithm>
#include <cstdint>

#include "scheduler/base/time.h"

namespace tandem::cost {

// One end's link to other workers, or what two ends have between them; one direction.
struct LinkSpeed {
  double bytes_per_s = 0;
  double latency_seconds = 0;

  // The slower end decides: its bytes, and the longer latency.
  LinkSpeed With(const LinkSpeed& peer) const {
    return {std::min(bytes_per_s, peer.bytes_per_s),
            std::max(latency_seconds, peer.latency_seconds)};
  }
  // How long `bytes` hold the link, and how long until they are there.
  Duration Occupancy(uint64_t bytes) const {
    return Duration::FromSeconds(static_cast<double>(bytes) / bytes_per_s);
  }
  Duration Transfer(uint64_t bytes) const {
    return Duration::FromSeconds(latency_seconds) + Occupancy(bytes);
  }
};

}  // namespace tandem::cost
