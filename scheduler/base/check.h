#pragma once

// Checks of what only our own bug can break; kept on in release. What traffic, peers or disks can
// cause is an absl::Status instead.

#include <cstdio>
#include <cstdlib>

namespace tandem {

// Prints where the broken condition stands and ends the process.
[[noreturn]] inline void CheckFailed(const char* file, int line, const char* condition) {
  std::fprintf(stderr, "%s:%d: check failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace tandem

#define TANDEM_CHECK(condition)                              \
  do {                                                       \
    if (!(condition)) [[unlikely]]                           \
      ::tandem::CheckFailed(__FILE__, __LINE__, #condition); \
  } while (false)
