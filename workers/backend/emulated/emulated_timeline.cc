#include "workers/backend/emulated/emulated_timeline.h"

#include <algorithm>
#include <utility>

#include "scheduler/base/check.h"

namespace tandem {
namespace {

// Weight of the newest call in the lag's smoothed ratio: some hundred calls, a few steps.
constexpr double kSmoothing = 1.0 / 256;

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

void EmulatedTimeline::Woken() { now_ = std::max(now_, time_.Now()); }

Instant EmulatedTimeline::Run(Duration work) {
  const Duration scaled = Scaled(work);
  work_since_wait_ += scaled;
  return now_ = now_ + scaled;
}

void EmulatedTimeline::WaitFor(Instant end) {
  if (time_.Now() < end) wait_until_(end);
  const Duration lag = std::max(Duration(), time_.Now() - end);
  lag_ns_.store(lag.nanoseconds(), std::memory_order_relaxed);
  if (lag.nanoseconds() > longest_ns_.load(std::memory_order_relaxed))
    longest_ns_.store(lag.nanoseconds(), std::memory_order_relaxed);
  if (work_since_wait_ > Duration()) {
    const double gained = (lag - last_lag_).seconds() / work_since_wait_.seconds();
    const double before = ratio_.load(std::memory_order_relaxed);
    ratio_.store(before + kSmoothing * (gained - before), std::memory_order_relaxed);
  }
  work_since_wait_ = Duration();
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
