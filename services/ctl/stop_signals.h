#pragma once

#include <absl/status/status.h>

#include "scheduler/base/time.h"
#include "services/ctl/process.h"

namespace tandem::ctl {

// While it lives, SIGINT, SIGTERM and SIGHUP do not end this process: Wait reports them.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  enum class Woken { kTimeout, kSignal, kProcessGone };
  // Until `timeout` has passed, a signal has come, or `process` has ended.
  Woken Wait(const ProcessRef& process, Duration timeout);

 private:
  int fd_ = -1;
};

}  // namespace tandem::ctl
