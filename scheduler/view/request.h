#pragma once

// What a request asks for, as values. The proto twins are in router.proto and registry.proto.

#include <absl/status/status.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/base/ids.h"

namespace tandem {

using TokenId = uint32_t;

// How a token is drawn; ranges as in common.proto, checked at the gateway and again at the worker.
struct Sampling {
  float temperature = 1.0f;         // 0 is greedy
  uint32_t top_k = 0;               // 0: off
  float top_p = 1.0f;               // 1: off
  float min_p = 0.0f;               // 0: off
  float repetition_penalty = 1.0f;  // over prompt and emitted ids; 1: off
  float presence_penalty = 0.0f;    // over emitted ids
  float frequency_penalty = 0.0f;   // over emitted ids
  std::map<TokenId, float> logit_bias;
  std::optional<uint32_t> top_logprobs;  // set: report logprobs, with that many alternatives
};

struct StopRules {
  uint32_t max_tokens = 0;  // >= 1, over all attempts
  std::vector<TokenId> stop_token_ids;
  bool ignore_eos = false;
};

enum class EndReason {
  kEos,
  kStopToken,
  kLength,
  kStopped,
  kCancelled,
  kPreempted,
  kSuperseded,
  kFailed,
};
const char* ToString(EndReason reason);  // "eos", "stop_token"

// How a sequence ended; `status` is not OK with kFailed only.
struct SequenceEnd {
  EndReason reason = EndReason::kFailed;
  absl::Status status;
};

// A gateway fell behind the replay buffer of its tokens (PROTOCOL, section 4): the one kUnavailable
// of an attention worker that is never resumed, for a re-prefill would only fall behind again. This
// code and message are the wire's, of a sequence's end and of a token stream's.
inline absl::Status GatewayOverloadedError() {
  return absl::UnavailableError("gateway_overloaded");
}
inline bool IsGatewayOverloaded(const absl::Status& status) {
  return absl::IsUnavailable(status) && status.message() == "gateway_overloaded";
}

// Where one choice of a request starts.
struct ChoiceStart {
  uint32_t choice = 0;
  uint32_t attempt = 0;
  uint64_t seed = 0;
  std::vector<TokenId> emitted_ids;  // what earlier attempts emitted
};

// All that a Generate carries.
struct GenerateSpec {
  RequestId request;
  std::vector<TokenId> prompt_ids;  // at least one
  Sampling sampling;
  StopRules stop;
  std::vector<ChoiceStart> choices;  // at least one; several only while none has emitted
  bool resume = false;
};

}  // namespace tandem
