#pragma once

// The bodies of POST /v1/chat/completions and /v1/completions, checked and turned into plain
// values.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/view/request.h"
#include "services/gateway/text/text_model.h"

namespace tandem::gateway {

struct RequestLimits {
  uint32_t max_n = 8;  // choices of one request
  uint32_t max_messages = 4096;
  uint32_t max_stop_strings = 4;     // OpenAI's number
  uint32_t max_stop_bytes = 256;     // of one stop string
  uint32_t max_stop_token_ids = 64;  // the contract's (common.proto)
  uint32_t max_logit_bias = 1024;    // entries; the contract's
  uint32_t max_prompt_ids =
      1u << 20;  // of a prompt given as ids; the model's context is checked later
  uint32_t max_json_depth = 32;
};

// One request, either endpoint. Token ids are not yet held against the vocabulary, nor lengths
// against the context.
struct ApiRequest {
  bool chat = false;
  std::string model;

  std::vector<ChatMessage> messages;       // chat; at least one; roles system, user, assistant
  std::optional<std::string> prompt_text;  // completions: this, or prompt_ids
  std::vector<uint32_t> prompt_ids;

  uint32_t n = 1;
  std::optional<uint32_t>
      max_tokens;  // unset: the endpoint's default. 0 only for completions with echo
  Sampling sampling;
  std::optional<uint64_t> seed;
  std::vector<std::string> stop;
  std::vector<uint32_t> stop_token_ids;
  bool ignore_eos = false;
  bool return_token_ids = false;  // vLLM's extension: each choice also says its token ids
  bool echo = false;
  bool stream = false;
  bool include_usage = false;
  bool timings =
      false;  // {"tandem": {"timings": true}}: say which worker ran which stage, and for how long
};

// kInvalidArgument with the parameter at fault in the status (openai/error.h). Unknown fields are
// tolerated; fields whose effect we do not have yet (tools, json_schema, suffix, ...) are refused,
// for an answer without it would be wrong.
absl::StatusOr<ApiRequest> ParseChatRequest(absl::string_view body, const RequestLimits& limits);
absl::StatusOr<ApiRequest> ParseCompletionRequest(absl::string_view body,
                                                  const RequestLimits& limits);

}  // namespace tandem::gateway
