#include "workers/backend/emulated/emulated_timeline.h"

#include <algorithm>
#include <utility>

#include "scheduler/base/check.h"

namespace tandem {
namespace {

// What the lag's ratio forgets with each call: it looks back some thousand calls, ten steps or so.
constexpr double kSmoothing = 1.0 / 2048;

// Past it a stamp is not believed.
constexpr Duration kLongestTransfer = Duration::Seconds(600);

}  // namespace

EmulatedTimeline::EmulatedTimeline(const TimeSource& time, std::function<void(Instant)> wait_until,
                                   double time_scale, const cost::LinkSpeed& link)
    : time_(time),
      wait_until_(std::move(wait_until)),
      time_scale_(time_scale),
      link_(link),
      now_(time.Now()),
      link_free_(now_) {
  TANDEM_CHECK(time_scale > 0);
}

Duration EmulatedTimeline::Scaled(Duration device) const {
  return Duration::FromSeconds(device.seconds() * time_scale_);
}

void EmulatedTimeline::Arrived(Instant at) { now_ = std::max(now_, at); }

void EmulatedTimeline::Woken(Instant now) {
  now_ = std::max(now_, now);
  woken_ = true;
}

Instant EmulatedTimeline::Due(Instant arrives_at) const {
  return std::clamp(arrives_at, Instant(), time_.Now() + kLongestTransfer);
}

Instant EmulatedTimeline::Run(Duration work) { return now_ = now_ + Scaled(work); }

void EmulatedTimeline::WaitFor(Instant end) {
  if (time_.Now() < end) wait_until_(end);
  const Duration lag = std::max(Duration(), time_.Now() - end);
  lag_ns_.store(lag.nanoseconds(), std::memory_order_relaxed);
  if (lag.nanoseconds() > longest_ns_.load(std::memory_order_relaxed))
    longest_ns_.store(lag.nanoseconds(), std::memory_order_relaxed);
  if (!std::exchange(woken_, false) && end > last_end_) {
    gained_seconds_ += (lag - last_lag_).seconds() - kSmoothing * gained_seconds_;
    line_seconds_ += (end - last_end_).seconds() - kSmoothing * line_seconds_;
    ratio_.store(gained_seconds_ / line_seconds_, std::memory_order_relaxed);
  }
  last_end_ = end;
  last_lag_ = lag;
}

Instant EmulatedTimeline::Send(uint64_t bytes, const cost::LinkSpeed& peer) {
  const cost::LinkSpeed speed = peer.bytes_per_s > 0 ? link_.With(peer) : link_;
  link_free_ = std::max(link_free_, now_) + Scaled(speed.Occupancy(bytes));
  return link_free_ + Scaled(Duration::FromSeconds(speed.latency_seconds));
}

EmulationLag EmulatedTimeline::lag() const {
  return {Duration::Nanoseconds(lag_ns_.load(std::memory_order_relaxed)),
          Duration::Nanoseconds(longest_ns_.load(std::memory_order_relaxed)),
          ratio_.load(std::memory_order_relaxed)};
}

}  // namespace tandem
