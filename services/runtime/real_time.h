#pragma once

#include <cstdint>
#include <memory>

#include "scheduler/base/time.h"

namespace tandem {

// The machine's monotonic clock; alarms fire on one thread of its own, in order of time, then of
// call. Safe from any thread. Cancel does not wait for an alarm that is running. The destructor
// drops the alarms that have not fired and waits for the one that is running.
class RealTimeSource final : public TimeSource {
 public:
  RealTimeSource();
  ~RealTimeSource() override;
  Instant Now() const override;
  AlarmId CallAt(Instant when, absl::AnyInvocable<void()> fn) override;
  bool Cancel(AlarmId alarm) override;
  // Blocks the caller until then, to some microseconds.
  void WaitUntil(Instant when) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Nanoseconds since 1970 by the machine's calendar clock: to name an epoch, never to measure.
int64_t UnixNanoseconds();

}  // namespace tandem
