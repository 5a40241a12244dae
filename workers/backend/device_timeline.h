#pragma once

// The time line of an emulated device: when its work ends and when what it sends arrives, in the
// machine's clock, so that the workers of one machine agree.
//
// The line runs ahead of the machine only while a call is computed, whose ticket waits for it. What
// the host itself needs between two calls does not move the line; the host being late is lag, which
// is told, and is made up for where the device would have waited.

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

  // Machine seconds for one of the device's.
  virtual double time_scale() const = 0;
  virtual Instant Now() const = 0;
  // Something stamped with this time has come: the line moves there, if it was before.
  virtual void Arrived(Instant at) = 0;
  // Work came from outside the emulation while the device was idle: the line catches up with the
  // machine.
  virtual void Woken() = 0;

  // What is sent at Now() to a peer with that link: when it is there. Transfers of one device
  // follow each other on its link, each as long as the slower end needs.
  virtual Instant SendA2f(uint32_t layer, uint32_t rows, const cost::LinkSpeed& peer) = 0;
  virtual Instant SendF2a(uint32_t rows, const cost::LinkSpeed& peer) = 0;
  virtual Instant SendKv(uint32_t positions, const cost::LinkSpeed& peer) = 0;  // of one layer
  virtual const cost::LinkSpeed& link() const = 0;                              // this end's

  virtual EmulationLag lag() const = 0;  // from any thread
};

}  // namespace tandem
