#pragma once

#include <absl/status/statusor.h>

#include <string>
#include <vector>

namespace tandem::ctl {

// Runs `PROGRAM ARGUMENTS...` of `bin_dir` (empty: where this program lies) to its end, with this
// program's stdout and stderr; it dies with this one. Its exit code; kUnavailable: a signal ended
// it; or why it could not be started, by Spawn (kNotFound: there is no such program).
absl::StatusOr<int> RunProgram(const std::string& bin_dir, const std::string& program,
                               const std::vector<std::string>& arguments);

}  // namespace tandem::ctl
