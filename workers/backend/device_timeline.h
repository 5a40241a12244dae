#pragma once

// A device's own clock: when its work ends and when what it sends arrives, in the machine's time,
// so that the workers of one machine agree. A real device's is the machine's clock
// (MachineTimeline).
//
// An emulated device's line runs ahead of the machine only while a call is computed, whose ticket
// waits for it. What the host itself needs between two calls does not move the line; the host being
// late is lag, which is told, and is made up for where the device would have waited.

#include <cstdint>

#include "scheduler/base/time.h"
#include "scheduler/cost/link.h"

namespace tandem {

// How far the host is behind the time line.
struct EmulationLag {
  Duration now;      // at the last call's end
  Duration longest;  // since the start
  double ratio = 0;  // lag gained for each second of the line lately; 0: the host keeps up
};

// The device's thread's, but for `lag` and the constants.
class DeviceTimeline {
 public:
  virtual ~DeviceTimeline() = default;

  // Machine seconds for one of the device's; 1 for a real one.
  virtual double time_scale() const = 0;
  // What a span of the line is in the device's seconds.
  Duration DeviceTime(Duration span) const {
    return time_scale() == 1 ? span : Duration::FromSeconds(span.seconds() / time_scale());
  }
  // What a span of the device's seconds is on the line.
  Duration MachineTime(Duration span) const {
    return time_scale() == 1 ? span : Duration::FromSeconds(span.seconds() * time_scale());
  }
  virtual Instant Now() const = 0;
  // Something stamped with this time has come: the line moves there, if it was before.
  virtual void Arrived(Instant at) = 0;
  // Work came from outside the emulation while the device was idle: the line catches up with the
  // machine, whose clock showed `now` when nothing stamped was due.
  virtual void Woken(Instant now) = 0;

  // When a frame with that stamp is there; Instant(): at once. A stamp comes from a peer, and is
  // believed within bounds only. From any thread.
  virtual Instant Due(Instant arrives_at) const = 0;

  // What is sent at Now() to a peer with that link: the stamp of its arrival; Instant(): none.
  // Transfers of one device follow each other on its link, each as long as the slower end needs.
  virtual Instant SendA2f(uint32_t layer, uint32_t rows, const cost::LinkSpeed& peer) = 0;
  virtual Instant SendF2a(uint32_t rows, const cost::LinkSpeed& peer) = 0;
  virtual Instant SendKv(uint32_t positions, const cost::LinkSpeed& peer) = 0;  // of one layer
  virtual const cost::LinkSpeed& link() const = 0;                              // this end's

  virtual EmulationLag lag() const = 0;  // from any thread
};

// A real device's: work ends when it ends, and frames are there when they come.
class MachineTimeline final : public DeviceTimeline {
 public:
  explicit MachineTimeline(const TimeSource& time) : time_(time) {}  // `time` outlives this

  double time_scale() const override { return 1; }
  Instant Now() const override { return time_.Now(); }
  void Arrived(Instant) override {}
  void Woken(Instant) override {}
  Instant Due(Instant) const override { return {}; }
  Instant SendA2f(uint32_t, uint32_t, const cost::LinkSpeed&) override { return {}; }
  Instant SendF2a(uint32_t, const cost::LinkSpeed&) override { return {}; }
  Instant SendKv(uint32_t, const cost::LinkSpeed&) override { return {}; }
  const cost::LinkSpeed& link() const override { return none_; }
  EmulationLag lag() const override { return {}; }

 private:
  const TimeSource& time_;
  const cost::LinkSpeed none_{};
};

}  // namespace tandem
