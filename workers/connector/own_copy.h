#pragma once

// absl::Status shares its message by count, and Debian's Abseil does that where TSan cannot see it.
// So a status that goes from one thread to another is copied whole, and each thread's is its own.

#include <absl/status/status.h>

namespace tandem {

inline absl::Status OwnCopy(const absl::Status& status) {
  return absl::Status(status.code(), status.message());
}

}  // namespace tandem
