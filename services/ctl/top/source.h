#pragma once

// Asks a cluster, again and again, for what `tandemctl top` shows.

#include <optional>
#include <string>

#include "scheduler/base/time.h"
#include "services/ctl/top/snapshot.h"
#include "services/runtime/link_security.h"

namespace tandem::ctl {

// Not thread-safe.
class TopSource {
 public:
  // `time` outlives this.
  TopSource(std::string router, LinkSecurity security, Duration window, const TimeSource& time)
      : router_(std::move(router)),
        security_(std::move(security)),
        window_(window),
        latency_(window),
        time_(time) {}

  // Asks the router, and the gateways that it knows. When the router does not answer: its last
  // word, marked as such. Takes some seconds at most.
  TopSnapshot Ask();
  bool answered() const { return last_.has_value(); }  // the router, ever

 private:
  LatencyView AskGateways(const v1::StatusReply& status, double time_scale);

  const std::string router_;
  const LinkSecurity security_;
  const Duration window_;
  LatencyWindow latency_;
  const TimeSource& time_;
  std::optional<TopSnapshot> last_;
  std::optional<Instant> lost_since_;
};

}  // namespace tandem::ctl
