#pragma once

// Whether the router takes a request into its queue, and when a client that it turns away should
// come back.

#include <absl/status/status.h>

#include "scheduler/base/time.h"
#include "scheduler/view/request.h"

namespace tandem::policy {

inline constexpr uint32_t kMaxChoices = 128;  // n of one request

struct QueueLimits {
  uint32_t max_queued_requests = 0;
  uint32_t max_queued_resumes =
      0;  // resumes stand in front and have a bound of their own: they were admitted once
};

struct QueueView {
  uint32_t requests = 0;  // waiting, resumes apart
  uint32_t resumes = 0;
  Duration placement_interval = {};  // recent mean between two placements; zero: not known
  uint64_t longest_sequence =
      0;  // tokens that an empty ready attention worker takes; zero: none is ready
};

// OK: queue it. kInvalidArgument: it is malformed, or longer than any worker takes;
// kResourceExhausted: the queue is full. Pure. Safe from any thread.
absl::Status Admit(const GenerateSpec& spec, const QueueView& queue, const QueueLimits& limits);

// The queue's length in time, at least 1 s and at most 60 s.
Duration RetryAfter(const QueueView& queue);

}  // namespace tandem::policy
