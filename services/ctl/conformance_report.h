#pragma once

// What a conformance run saw, as text for a terminal: case, verdict, first difference.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>
#include <vector>

namespace tandem::ctl {

struct ConformanceCase {
  std::string name;
  bool passed = false;
  std::string what;              // of a pass a figure; of a failure what came and what was due
  std::string first_difference;  // of rows; may be empty
};

struct ConformanceReport {
  std::string address, model, reference;
  std::vector<ConformanceCase> cases;

  size_t failed() const;
};

// What `tandem-worker conformance-ffn` writes. kInvalidArgument: that is not it.
absl::StatusOr<ConformanceReport> ReadConformanceReport(absl::string_view json);

// A line a case, and how many passed.
std::string ConformanceText(const ConformanceReport& report);

}  // namespace tandem::ctl
