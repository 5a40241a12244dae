#pragma once

// What the engines of one device share. Everything here but the mailbox and the books is the
// device's thread's alone.

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <memory>

#include "scheduler/base/time.h"
#include "workers/backend/stage_backend.h"
#include "workers/connector/ports.h"
#include "workers/engine/config.h"
#include "workers/engine/device_books.h"
#include "workers/engine/mailbox.h"

namespace tandem {

struct EngineContext {
  const EngineConfig& config;
  StageBackend& backend;
  TimeSource& time;
  WorkerListener& listener;
  std::shared_ptr<Mailbox> mailbox;  // listeners of links hold it too, and may outlive the engine
  DeviceBooks& books;
  EngineCounters counters;

  Instant Now() const { return time.Now(); }

  // The device's own clock, in machine time: an emulated device's time line, or the machine's.
  Instant DeviceNow() const {
    const DeviceTimeline* line = backend.timeline();
    return line != nullptr ? line->Now() : time.Now();
  }
  // What a span of that clock is in the device's seconds.
  Duration DeviceTime(Duration machine) const {
    const DeviceTimeline* line = backend.timeline();
    return line != nullptr ? Duration::FromSeconds(machine.seconds() / line->time_scale())
                           : machine;
  }
  // When a frame with that stamp is there. A stamp means something to an emulated device only.
  Instant Due(Instant arrives_at) const {
    if (backend.timeline() == nullptr) return Instant();
    return std::min(arrives_at, time.Now() + kLongestTransfer);
  }

  // Past it a stamp is not believed: it comes from a peer.
  static constexpr Duration kLongestTransfer = Duration::Seconds(600);
  const ModelDimensions& model() const { return backend.info().dimensions; }
  bool Runs(Stage stage) const { return config.stages.contains(stage); }
};

// The device's memory for the rows of one micro-batch or chunk, reused while it is big enough.
struct RowBuffers {
  BufferRef residual;  // [rows, hidden]
  BufferRef ffn_out;   // [rows, hidden]
  uint32_t capacity_rows = 0;

  absl::Status Reserve(StageBackend& backend, uint32_t rows);
};

// `buffer`'s rows as the host sees them. kUnimplemented: the host cannot address it.
absl::StatusOr<float*> HostRows(Buffer& buffer);

}  // namespace tandem
