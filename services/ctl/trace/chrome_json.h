#pragma once

// A trace as a file of the Trace Event Format (JSON object form), which ui.perfetto.dev and
// chrome://tracing open.
// https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU

#include <absl/status/status.h>
#include <absl/strings/string_view.h>
#include <absl/types/span.h>

#include <cstdint>
#include <functional>

#include "services/ctl/trace/align.h"

namespace tandem::ctl {

// Takes the file's bytes piece by piece.
using TextSink = std::function<absl::Status(absl::string_view)>;

// Processes are workers, threads are tracks (tracks.h). Spans are complete events ("X") and
// hand-offs flows ("s", "f"); `ts` and `dur` are microseconds of the devices' time (an emulated
// device's seconds, not the machine's), from the first span on, in ascending order, to the
// nanosecond. Errors are the sink's.
absl::Status WriteChromeTrace(absl::Span<const WorkerTrace> workers,
                              absl::Span<const WorkerClock> clocks,
                              absl::Span<const Handoff> handoffs, const TextSink& sink);

}  // namespace tandem::ctl
