#pragma once

// What the engines of one device share. Everything here but the mailbox and the books is the
// device's thread's alone.

#include <absl/status/status.h>
#include <absl/strings/str_cat.h>

#include <memory>
#include <vector>

#include "scheduler/base/time.h"
#include "workers/backend/stage_backend.h"
#include "workers/connector/ports.h"
#include "workers/engine/config.h"
#include "workers/engine/device_books.h"
#include "workers/engine/mailbox.h"
#include "workers/trace/trace_log.h"

namespace tandem {

struct EngineContext {
  const EngineConfig& config;
  StageBackend& backend;
  TimeSource& time;
  DeviceTimeline& line;  // the backend's, or the machine's
  WorkerListener& listener;
  std::shared_ptr<Mailbox> mailbox;  // listeners of links hold it too, and may outlive the engine
  DeviceBooks& books;
  TraceLog& trace;
  EngineCounters counters;

  Instant Now() const { return time.Now(); }
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

// The first floats of a buffer in the host's memory: the one copy that a connector sends.
std::vector<float> CopyOut(const Buffer& buffer, size_t floats);

}  // namespace tandem
