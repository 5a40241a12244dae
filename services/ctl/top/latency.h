#pragma once

// TTFT and TPOT out of gateways' /metrics. Pure.

#include <absl/strings/string_view.h>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>

#include "scheduler/base/time.h"

namespace tandem::ctl {

// One histogram as Prometheus has it, of all label sets together.
struct HistogramView {
  std::map<double, double> below;  // upper bound, seconds, to observations at or below it
  double sum = 0, count = 0;

  void Add(const HistogramView& other);
  // What came since `earlier`; all, where this one has started anew meanwhile.
  HistogramView Since(const HistogramView& earlier) const;
  std::optional<double> Mean() const;
  // The bound of the bucket that the quantile falls into, so that it is at most that; infinity past
  // the last one. nullopt: no observation.
  std::optional<double> Below(double quantile) const;
};

// What a gateway's page says of its finished requests.
struct GatewayScrape {
  HistogramView ttft, itl;
  // Whether times are the emulated devices'; else they are wall seconds.
  bool device_time = false;
};
// Lines that are none of these are passed over, whatever they hold.
GatewayScrape ReadGatewayPage(absl::string_view page);

struct LatencyView {
  std::string why_not;        // there is nothing to show, and why; empty: there is
  double window_seconds = 0;  // of the machine; 0: since the gateways started
  double requests = 0;        // finished, that had a first token
  uint32_t gateways = 0, gateways_silent = 0;
  std::optional<double> ttft_mean, ttft_p50, ttft_p99;  // seconds, of the devices' time
  std::optional<double> tpot_mean, itl_p50, itl_p99;    // likewise; TPOT: every gap counts alike
};
// `time_scale`: of the workers, for pages in wall seconds; 0: real time.
LatencyView ViewLatency(const GatewayScrape& scrape, double window_seconds, double time_scale);

// Pages of several gateways over time: what came within the last `window`.
class LatencyWindow {
 public:
  explicit LatencyWindow(Duration window) : window_(window) {}

  // A gateway's page as it was at `now`, which does not go back.
  void Add(const std::string& gateway, GatewayScrape scrape, Instant now);
  // Forgets gateways that are not among these.
  void Keep(const std::set<std::string>& gateways);
  // Of all gateways, since the newest page of each that is as old as the window, or since the
  // oldest; of one page alone since that gateway started.
  LatencyView View(double time_scale) const;

 private:
  struct Page {
    Instant at;
    GatewayScrape scrape;
  };
  const Duration window_;
  std::map<std::string, std::deque<Page>> pages_;  // by gateway, in order of time
};

}  // namespace tandem::ctl
