#pragma once

// The live request of `tandemctl explain`: what it asks the gateway, and what the answer says.
// Pure.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "services/ctl/explain/report.h"

namespace tandem::ctl {

inline constexpr uint32_t kExplainCandidates = 5;  // what /v1/completions takes for logprobs
inline constexpr uint32_t kMaxExplainTokens = 1024;

struct ExplainQuestion {
  std::string prompt;   // not empty, UTF-8
  uint32_t tokens = 4;  // generated; the last one's step is explained. 1 to kMaxExplainTokens
  double temperature = 0;
  uint64_t seed = 0;
};
// "greedy", "temperature 0.8, seed 7".
std::string SamplingWords(const ExplainQuestion& question);

// Body for POST /v1/completions. kInvalidArgument: the prompt is empty, or no UTF-8.
absl::StatusOr<std::string> CompletionBody(const ExplainQuestion& question,
                                           const std::string& model);

struct ExplainAnswer {
  std::string topology, attention_worker;
  uint32_t prompt_tokens = 0;
  std::vector<ExplainedToken> tokens;  // at least one
  uint64_t decode_step = 0;            // that drew the last one
  std::vector<Candidate> candidates;   // of the last one, descending
};
// Of a 200. kInvalidArgument names what is missing; kFailedPrecondition: no token, or the gateway
// or worker does not say which step drew it.
absl::StatusOr<ExplainAnswer> ParseAnswer(absl::string_view body);
// The message of an OpenAI error object, in one line; the body's beginning where it is none.
std::string ErrorOf(absl::string_view body);

}  // namespace tandem::ctl
