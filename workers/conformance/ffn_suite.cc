#include "workers/conformance/ffn_suite.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include "scheduler/base/status.h"
#include "workers/conformance/ffn_session.h"

namespace tandem::conformance {
namespace {

std::vector<Case> AllCases() {
  std::vector<Case> all;
  for (const absl::Span<const Case> part : {OpenCases(), CallCases(), FlowCases()})
    all.insert(all.end(), part.begin(), part.end());
  return all;
}

CaseResult Run(const Case& one, FfnSession& session) {
  session.note.clear();
  session.first_difference.clear();
  const absl::Status status = one.run(session);
  CaseResult result;
  result.name = one.name;
  result.verdict = status.ok() ? Verdict::kPass : Verdict::kFail;
  result.what = status.ok() ? session.note : std::string(status.message());
  if (!status.ok()) result.first_difference = session.first_difference;
  return result;
}

}  // namespace

std::vector<std::string> FfnCaseNames() {
  std::vector<std::string> names;
  for (const Case& one : AllCases()) names.emplace_back(one.name);
  return names;
}

absl::StatusOr<std::vector<CaseResult>> RunFfnSuite(
    const FfnSuiteOptions& options, StageBackend& reference,
    const std::function<void(const CaseResult&)>& on_case) {
  FfnSession session(options, reference);
  RETURN_IF_ERROR(session.Begin());
  std::vector<CaseResult> results;
  for (const Case& one : AllCases()) {
    if (!absl::StrContains(one.name, options.only)) continue;
    results.push_back(Run(one, session));
    on_case(results.back());
  }
  if (results.empty())
    return absl::InvalidArgumentError(absl::StrCat("no case has '", options.only, "' in its name"));
  return results;
}

}  // namespace tandem::conformance
