#include "services/gateway/openai/error.h"

#include <absl/strings/cord.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include "services/runtime/http_status.h"
#include "services/runtime/utf8.h"

namespace tandem::gateway {
namespace {

constexpr char kParam[] = "tandem/param";
constexpr char kCode[] = "tandem/code";
constexpr char kRetryAfter[] = "tandem/retry_after";
constexpr double kRetryAfterSeconds = 1;   // of 429 and 503 that say nothing themselves
constexpr size_t kMaxMessageBytes = 1024;  // a message may quote the request, which is megabytes
constexpr size_t kMaxParamBytes = 128;

std::string Payload(const absl::Status& status, const char* key) {
  const auto found = status.GetPayload(key);
  return found.has_value() ? std::string(*found) : "";
}

void SetPayload(absl::Status& status, const char* key, absl::string_view value) {
  if (!value.empty()) status.SetPayload(key, absl::Cord(value));
}

std::string StringOrNull(const std::string& value) {
  return value.empty() ? "null" : JsonQuoted(value);
}

}  // namespace

absl::Status InvalidParam(absl::string_view param, absl::string_view message,
                          absl::string_view code) {
  absl::Status status = absl::InvalidArgumentError(message.substr(0, kMaxMessageBytes));
  SetPayload(status, kParam, param.substr(0, kMaxParamBytes));
  SetPayload(status, kCode, code);
  return status;
}

absl::Status WithErrorCode(absl::Status status, absl::string_view code) {
  SetPayload(status, kCode, code);
  return status;
}

absl::Status WithRetryAfter(absl::Status status, double seconds) {
  if (seconds > 0) SetPayload(status, kRetryAfter, absl::StrCat(seconds));
  return status;
}

ApiError ToApiError(const absl::Status& status) {
  ApiError error;
  error.http_status = HttpStatus(status.code());
  error.message = std::string(status.message());
  error.param = Payload(status, kParam);
  error.code = Payload(status, kCode);
  double seconds = 0;
  if (absl::SimpleAtod(Payload(status, kRetryAfter), &seconds)) error.retry_after_seconds = seconds;
  const char* code = "";
  switch (error.http_status) {
    case 400:
    case 404:
      error.type = "invalid_request_error";
      break;
    case 429:
      error.type = "rate_limit_error";
      code = "rate_limit_exceeded";
      break;
    case 503:
      error.type = "service_unavailable_error";
      code = "service_unavailable";
      break;
    case 504:
      error.type = "timeout_error";
      code = "timeout";
      break;
    case 501:
      error.type = "invalid_request_error";
      code = "unsupported";
      break;
    default:
      error.type = "server_error";
      code = "internal_error";
  }
  if (error.code.empty()) error.code = code;
  // Both mean: not now. Whoever knows better when has said it.
  const bool later = error.http_status == 429 || error.http_status == 503;
  if (later && error.retry_after_seconds <= 0) error.retry_after_seconds = kRetryAfterSeconds;
  return error;
}

std::string ErrorBody(const ApiError& error) {
  return absl::StrCat(R"({"error":{"message":)", JsonQuoted(error.message), R"(,"type":)",
                      JsonQuoted(error.type), R"(,"param":)", StringOrNull(error.param),
                      R"(,"code":)", StringOrNull(error.code), "}}");
}

}  // namespace tandem::gateway
