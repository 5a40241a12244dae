#pragma once

// How long to wait before a dead process is started again.

#include <algorithm>

#include "scheduler/base/time.h"

namespace tandem::ctl {

// Exponential, and forgotten once the process has been up for a while: what a kubelet does (10 s to
// 5 min, reset after 10 min,
// https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#restart-policy), on a
// developer's scale.
class Backoff {
 public:
  static constexpr Duration kFirst = Duration::Seconds(1);
  static constexpr Duration kMost = Duration::Seconds(30);
  static constexpr Duration kForgetAfter = Duration::Seconds(60);

  // The wait after a run that lasted `up`: 1, 2, 4, ... 30 s.
  Duration Next(Duration up) {
    if (up >= kForgetAfter) next_ = kFirst;
    const Duration now = next_;
    next_ = std::min(next_ * 2, kMost);
    return now;
  }

 private:
  Duration next_ = kFirst;
};

}  // namespace tandem::ctl
