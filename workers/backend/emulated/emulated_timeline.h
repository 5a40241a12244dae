#pragma once

#include <atomic>
#include <functional>

#include "workers/backend/device_timeline.h"

namespace tandem {

// The line itself; durations are the device's, instants the machine's.
class EmulatedTimeline {
 public:
  // `wait_until` returns when the machine's clock is there or past. `time` outlives this.
  EmulatedTimeline(const TimeSource& time, std::function<void(Instant)> wait_until,
                   double time_scale, const cost::LinkSpeed& link);

  double time_scale() const { return time_scale_; }
  const cost::LinkSpeed& link() const { return link_; }
  Instant Now() const { return now_; }
  void Arrived(Instant at);
  void Woken(Instant now);
  Instant Due(Instant arrives_at) const;

  // Work of that length starts at Now(), which moves to its end.
  Instant Run(Duration work);
  // Waits for the end of a call; takes the lag there.
  void WaitFor(Instant end);

  // `bytes` go out at Now(): when they are there.
  Instant Send(uint64_t bytes, const cost::LinkSpeed& peer);

  EmulationLag lag() const;

 private:
  Duration Scaled(Duration device) const;

  const TimeSource& time_;
  const std::function<void(Instant)> wait_until_;
  const double time_scale_;
  const cost::LinkSpeed link_;
  Instant now_;
  Instant link_free_;
  // For `lag`: of the call before, and smoothed sums since.
  Instant last_end_;
  Duration last_lag_;
  bool woken_ = true;  // the line has caught up since
  double gained_seconds_ = 0, line_seconds_ = 0;
  std::atomic<int64_t> lag_ns_{0}, longest_ns_{0};
  std::atomic<double> ratio_{0};
};

}  // namespace tandem
