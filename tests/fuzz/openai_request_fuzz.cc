// A request's body: refused with a 400 that names the field, or turned into values that router and
// worker take as they are.
//
// Input: 'c' and a body of /v1/chat/completions, or any other byte and one of /v1/completions.

#include <absl/strings/match.h>
#include <absl/strings/string_view.h>

#include <boost/json/parse.hpp>
#include <cmath>

#include "services/gateway/openai/error.h"
#include "services/gateway/openai/request.h"
#include "services/gateway/relay/grpc/convert.h"
#include "services/router/dispatch/convert.h"
#include "services/runtime/utf8.h"
#include "tests/fuzz/fuzz_input.h"
#include "workers/rpc/convert.h"

namespace tandem::gateway {
namespace {

void CheckError(const absl::Status& status) {
  fuzz::CheckRefusal(status);
  const ApiError error = ToApiError(status);
  TANDEM_CHECK(error.message.size() <= 1024 && error.param.size() <= 128);
  TANDEM_CHECK(error.http_status == 400 && error.type == "invalid_request_error");
  const bool about_the_whole = absl::StartsWith(error.message, "the body is");
  TANDEM_CHECK(about_the_whole || !error.param.empty());
  TANDEM_CHECK(absl::StrContains(error.message, error.param));
  const boost::json::value body = boost::json::parse(ErrorBody(error));
  TANDEM_CHECK(!body.at("error").at("message").as_string().empty());
}

void CheckValues(const ApiRequest& request, const RequestLimits& limits) {
  TANDEM_CHECK(!request.model.empty() && IsValidUtf8(request.model));
  TANDEM_CHECK(request.n >= 1 && request.n <= limits.max_n);
  TANDEM_CHECK(request.stop.size() <= limits.max_stop_strings);
  for (const std::string& stop : request.stop) {
    TANDEM_CHECK(!stop.empty() && stop.size() <= limits.max_stop_bytes && IsValidUtf8(stop));
  }
  TANDEM_CHECK(!request.max_tokens || *request.max_tokens > 0 || request.echo);
  if (!request.chat) {
    TANDEM_CHECK(request.messages.empty());
    TANDEM_CHECK(request.prompt_text.has_value() != !request.prompt_ids.empty());
    TANDEM_CHECK(!request.prompt_text || !request.prompt_text->empty());
    return;
  }
  TANDEM_CHECK(!request.messages.empty() && request.messages.size() <= limits.max_messages);
  for (const ChatMessage& message : request.messages) {
    TANDEM_CHECK(message.role == "system" || message.role == "user" || message.role == "assistant");
    TANDEM_CHECK(IsValidUtf8(message.content));
  }
}

// Gateway to router to worker: nobody past the gateway may find fault with what it has checked.
void CheckOnwards(const ApiRequest& request) {
  tandem::GenerateSpec spec;
  spec.request = RequestId("r");
  spec.prompt_ids = {1};
  spec.sampling = request.sampling;
  spec.stop = {request.max_tokens.value_or(0) > 0 ? *request.max_tokens : 1, request.stop_token_ids,
               request.ignore_eos};
  for (uint32_t i = 0; i < request.n; ++i) spec.choices.push_back({i, 0, i, {}});
  v1::GenerateRequest generate;
  ToProto(spec, &generate);
  TANDEM_CHECK(router::CheckGenerate(generate, router::GenerateLimits()).ok());
  tandem::GenerateSpec placed = router::ToSpec(generate);
  control::SendDecode command;
  command.reservation = ReservationId("v");
  command.gateway = GatewayId("g");
  command.request = placed.request;
  command.choices = placed.choices;
  command.prompt_ids = placed.prompt_ids;
  command.sampling = placed.sampling;
  command.stop = placed.stop;
  const auto decode = tandem::ToDecodeRequest(router::ToProto(command).decode());
  TANDEM_CHECK(decode.ok());
  TANDEM_CHECK(decode->sampling.logit_bias == request.sampling.logit_bias);
  TANDEM_CHECK(decode->sampling.top_logprobs == request.sampling.top_logprobs);
  TANDEM_CHECK(decode->stop.stop_token_ids == request.stop_token_ids);
}

}  // namespace
}  // namespace tandem::gateway

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace tandem::gateway;
  tandem::fuzz::FuzzInput input(data, size);
  const bool chat = input.Byte() == 'c';
  const RequestLimits limits;
  const absl::string_view body = input.Rest();
  const auto request = chat ? ParseChatRequest(body, limits) : ParseCompletionRequest(body, limits);
  if (!request.ok()) {
    CheckError(request.status());
    return 0;
  }
  TANDEM_CHECK(request->chat == chat);
  CheckValues(*request, limits);
  CheckOnwards(*request);
  return 0;
}
