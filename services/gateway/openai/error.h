#pragma once

// Errors as OpenAI's clients read them: {"error":{"message","type","param","code"}}.
//
// Inside the gateway an error is an absl::Status; the parameter at fault and OpenAI's code travel
// in its payloads.

#include <absl/status/status.h>
#include <absl/strings/string_view.h>

#include <string>

namespace tandem::gateway {

struct ApiError {
  int http_status = 500;
  std::string message;
  std::string type;   // "invalid_request_error", "rate_limit_error", "server_error", ...
  std::string param;  // empty: null
  std::string code;   // empty: null
  double retry_after_seconds = 0;  // 0: no Retry-After
};

// 400 about a request's field; `param` as in "messages[0].role". Both are cut to what an answer and
// a log line can hold.
absl::Status InvalidParam(absl::string_view param, absl::string_view message,
                          absl::string_view code = "");

// Sets OpenAI's code, or when to try again, on a status that is not OK.
absl::Status WithErrorCode(absl::Status status, absl::string_view code);
absl::Status WithRetryAfter(absl::Status status, double seconds);

// Statuses without an OpenAI code get their type and code from the status code
// (services/runtime/http_status.h).
ApiError ToApiError(const absl::Status& status);

// The JSON object.
std::string ErrorBody(const ApiError& error);

}  // namespace tandem::gateway
