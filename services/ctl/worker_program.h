#pragma once

#include <absl/status/statusor.h>

#include <string>
#include <vector>

namespace tandem::ctl {

// Runs `tandem-worker ARGUMENTS...` of `bin_dir` (empty: where this program lies) to its end, with
// this program's stdout and stderr; it dies with this one. Its exit code; kUnavailable: a signal
// ended it.
absl::StatusOr<int> RunWorkerProgram(const std::string& bin_dir,
                                     const std::vector<std::string>& arguments);

}  // namespace tandem::ctl
