#pragma once

// absl codes as HTTP statuses (gateway, and nothing else). 401, 405, 413 and 415 are made by the
// HTTP layer.

#include <absl/status/status.h>

namespace tandem {

// kInvalidArgument, kOutOfRange, kFailedPrecondition 400; kNotFound 404; kResourceExhausted 429;
// kUnavailable 503; kDeadlineExceeded 504; kCancelled 499 (logs only); kUnimplemented 501;
// everything else 500.
int HttpStatus(absl::StatusCode code);

}  // namespace tandem
