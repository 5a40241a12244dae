#pragma once

// Holds an FFN server, anybody's, against docs/handoff.md, over the wire: each case opens streams
// of its own, and says what the first difference was.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/base/time.h"
#include "workers/backend/stage_backend.h"

namespace tandem::conformance {

struct FfnSuiteOptions {
  std::string address;            // host:port
  std::string model_name;         // as the server was told
  std::optional<uint64_t> epoch;  // unset: asked of the server, whose refusal of another says it
  Duration patience = Duration::Seconds(10);  // for each answer; longer is a failure
  // How far a row may be from the reference's: |difference| over |row|, Euclidean. For one and the
  // same arithmetic in another order this is much; rows that the reference rounds to 8 bits and the
  // server does not lie further apart (tandem-worker conformance-ffn says how far).
  double tolerance = 0.02;
  std::string only;  // cases whose name contains it
};

enum class Verdict { kPass, kFail };

struct CaseResult {
  std::string name;  // "batch/alone"
  Verdict verdict = Verdict::kFail;
  std::string what;  // of a pass a figure, if there is one; of a failure what came and what was due
  std::string first_difference;  // "row 1 element 17: 0.25, not 0.5"; empty where none is of rows
};

// The names of all cases, in order.
std::vector<std::string> FfnCaseNames();

// Runs the cases one after the other and tells each as it ends. `reference` holds the FFN of every
// layer of the same model, in memory that the host addresses. kUnavailable: nobody answers there;
// kInvalidArgument: no case has `only` in its name.
absl::StatusOr<std::vector<CaseResult>> RunFfnSuite(
    const FfnSuiteOptions& options, StageBackend& reference,
    const std::function<void(const CaseResult&)>& on_case);

}  // namespace tandem::conformance
