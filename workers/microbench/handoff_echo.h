#pragma once

// Round trips of the hand-off, A2F and F2A, through our own link and service over loopback TCP in
// one process, with nothing computed in between.

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "scheduler/base/time.h"
#include "services/runtime/mutex.h"

namespace tandem {

// Collects the times of round trips that follow each other, each started by the end of the last.
class RoundTripTimer {
 public:
  explicit RoundTripTimer(const TimeSource& time) : time_(time) {}  // `time` outlives this

  void Begin(uint32_t count) TANDEM_EXCLUDES(mu_);
  // A round trip ended. False: it was the last.
  bool Next() TANDEM_EXCLUDES(mu_);
  std::vector<double> Await() TANDEM_EXCLUDES(mu_);  // seconds of each

 private:
  const TimeSource& time_;
  Mutex mu_;
  CondVar done_;
  uint32_t left_ TANDEM_GUARDED_BY(mu_) = 0;
  Instant last_ TANDEM_GUARDED_BY(mu_);
  std::vector<double> seconds_ TANDEM_GUARDED_BY(mu_);
};

class HandoffEcho {
 public:
  // Who turns a message round.
  enum class Ends {
    kStreams,  // gRPC's own thread, at once: what the wire and our codec cost
    kDevices,  // a device's thread that waits at its mailbox, as the engines' do, on either side
  };
  // kUnavailable: no loopback port. `time` outlives this. `turn`: how long each end is busy before
  // it sends, as devices are; meanwhile the other's core goes to sleep, and waking it takes its
  // time.
  static absl::StatusOr<std::unique_ptr<HandoffEcho>> Start(uint32_t rows, uint32_t hidden,
                                                            Ends ends, TimeSource& time,
                                                            Duration turn = Duration());
  ~HandoffEcho();
  // `count` round trips of [rows, hidden] F32 each way, one after the other; seconds of each,
  // without the turns.
  std::vector<double> RoundTrips(uint32_t count);

 private:
  struct Impl;
  explicit HandoffEcho(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem
