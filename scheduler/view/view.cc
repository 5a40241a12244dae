// The views are plain values; this file names their enums.
#include "scheduler/view/request.h"
#include "scheduler/view/worker.h"

namespace tandem {

const char* ToString(Stage stage) {
  switch (stage) {
    case Stage::kPrefill:
      return "prefill";
    case Stage::kAttention:
      return "attention";
    case Stage::kFfn:
      return "ffn";
  }
  return "unknown";
}

const char* ToString(EndReason reason) {
  switch (reason) {
    case EndReason::kEos:
      return "eos";
    case EndReason::kStopToken:
      return "stop_token";
    case EndReason::kLength:
      return "length";
    case EndReason::kStopped:
      return "stopped";
    case EndReason::kCancelled:
      return "cancelled";
    case EndReason::kPreempted:
      return "preempted";
    case EndReason::kSuperseded:
      return "superseded";
    case EndReason::kFailed:
      return "failed";
  }
  return "unknown";
}

}  // namespace tandem
