#include "services/gateway/http/api.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <utility>

#include "scheduler/base/status.h"
#include "services/gateway/http/answering.h"
#include "services/gateway/openai/error.h"

// g++ 12 inlines the operator new of a coroutine's frame and not the delete beside it (both
// Asio's), and takes them for strangers.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wmismatched-new-delete"
#endif

namespace tandem::gateway {

namespace asio = boost::asio;

namespace {

constexpr absl::string_view kModels = "/v1/models", kCompletions = "/v1/completions",
                            kChat = "/v1/chat/completions";

}  // namespace

Api::Api(ApiConfig config, const TextModel& text, Relay& relay, TimeSource& time,
         std::function<int64_t()> unix_seconds, uint64_t seed,
         std::function<void(const RequestRecord&)> finished)
    : config_(std::move(config)),
      text_(text),
      relay_(relay),
      time_(time),
      unix_seconds_(std::move(unix_seconds)),
      finished_(std::move(finished)),
      created_(unix_seconds_()),
      random_(seed) {}

uint64_t Api::Draw() {
  MutexLock lock(mu_);
  return random_.Next();
}

std::string Api::NewId() { return absl::StrFormat("%016x%016x", Draw(), Draw()); }

void Api::Drain() { draining_ = true; }

std::string Api::NotReadyReason() const {
  if (draining_) return "draining";
  const ClusterInfo cluster = relay_.cluster();
  return cluster.ready ? "" : cluster.reason.empty() ? "no router is connected" : cluster.reason;
}

std::string Api::ErrorBodyOf(int status, const std::string& message) {
  ApiError error;
  error.http_status = status;
  error.message = message;
  error.type = status >= 500 ? "server_error" : "invalid_request_error";
  return ErrorBody(error);
}

asio::awaitable<void> Api::ReplyError(const absl::Status& status, HttpAnswer& answer,
                                      RequestRecord& record) {
  const ApiError error = ToApiError(status);
  record.status = error.http_status;
  HttpHeaders headers;
  if (error.retry_after_seconds > 0) {
    headers.emplace_back("Retry-After",
                         absl::StrCat(static_cast<int64_t>(error.retry_after_seconds + 0.999)));
  }
  (void)co_await answer.Reply(error.http_status, "application/json", ErrorBody(error),
                              std::move(headers));
}

// A request without a key of ours. The key it had, if any, is not repeated.
asio::awaitable<void> Api::RefuseKey(const HttpQuery& query, HttpAnswer& answer) {
  RequestRecord record;
  const bool known = query.path == kChat || query.path == kCompletions || query.path == kModels;
  record.route = known ? query.path : "other";  // a label: not the client's to choose
  record.request_id = query.request_id;
  ApiError error;
  error.http_status = record.status = 401;
  error.message = query.bearer.empty()
                      ? "No API key was given: send it as 'Authorization: Bearer KEY'."
                      : "Incorrect API key provided.";
  error.type = "invalid_request_error";
  error.code = "invalid_api_key";
  HttpHeaders headers(1, {"WWW-Authenticate", "Bearer"});
  std::string body = ErrorBody(error);
  (void)co_await answer.Reply(401, "application/json", std::move(body), std::move(headers));
  finished_(record);
}

asio::awaitable<void> Api::Handle(HttpQuery query, HttpAnswer& answer) {
  const bool get = query.method == "GET", post = query.method == "POST";
  std::optional<std::string> key_name = "";
  if (config_.key_name && (absl::StartsWith(query.path, "/v1/") || query.path == "/v1")) {
    key_name = config_.key_name(query.bearer);
    if (!key_name.has_value()) co_return co_await RefuseKey(query, answer);
  }
  const bool chat = query.path == kChat;
  if (chat || query.path == kCompletions) {
    if (!post) {
      HttpHeaders allow(1, {"Allow", "POST"});
      (void)co_await answer.Reply(405, "application/json", ErrorBodyOf(405, "use POST"),
                                  std::move(allow));
    } else if (query.content_type != "application/json" && !query.content_type.empty()) {
      (void)co_await answer.Reply(415, "application/json",
                                  ErrorBodyOf(415, "send application/json"), HttpHeaders());
    } else {
      co_await Complete(chat, *std::move(key_name), std::move(query), answer);
    }
    co_return;
  }
  const bool models = query.path.rfind(kModels.data(), 0) == 0 &&
                      (query.path.size() == kModels.size() || query.path[kModels.size()] == '/');
  if (!models && query.path != "/livez" && query.path != "/readyz") {
    std::string body = ErrorBodyOf(404, absl::StrCat("no path ", query.path));
    (void)co_await answer.Reply(404, "application/json", std::move(body), HttpHeaders());
  } else if (!get) {
    HttpHeaders allow(1, {"Allow", "GET"});
    (void)co_await answer.Reply(405, "application/json", ErrorBodyOf(405, "use GET"),
                                std::move(allow));
  } else if (query.path == "/livez") {
    (void)co_await answer.Reply(200, "text/plain", "ok\n", HttpHeaders());
  } else if (query.path == "/readyz") {
    const std::string reason = NotReadyReason();
    // Named first: g++ 12 frees a conditional temporary inside a co_await twice.
    const int status = reason.empty() ? 200 : 503;
    std::string body = reason.empty() ? "ok\n" : absl::StrCat(reason, "\n");
    (void)co_await answer.Reply(status, "text/plain", std::move(body), HttpHeaders());
  } else if (query.path.size() <= kModels.size() + 1) {
    (void)co_await answer.Reply(200, "application/json", ModelList(config_.model_name, created_),
                                HttpHeaders());
  } else if (query.path.substr(kModels.size() + 1) == config_.model_name) {
    (void)co_await answer.Reply(200, "application/json", ModelObject(config_.model_name, created_),
                                HttpHeaders());
  } else {
    RequestRecord record;
    const absl::Status unknown = WithErrorCode(
        absl::NotFoundError(absl::StrCat("no model '", query.path.substr(kModels.size() + 1), "'")),
        "model_not_found");
    co_await ReplyError(unknown, answer, record);
  }
}

asio::awaitable<void> Api::Complete(bool chat, std::string key_name, HttpQuery query,
                                    HttpAnswer& answer) {
  RequestRecord record;
  record.key_name = std::move(key_name);
  record.route = query.path;
  record.request_id = query.request_id;
  const Instant start = time_.Now();
  // Times of emulated workers are no times of the model.
  const double time_scale = record.time_scale = relay_.cluster().time_scale;
  if (time_scale > 0) answer.AddHeader("x-tandem-time-scale", absl::StrCat(time_scale));
  absl::StatusOr<Prepared> prepared =  // not awaited: a plain call
      draining_ ? absl::StatusOr<Prepared>(absl::UnavailableError("the gateway is draining"))
                : Prepare(chat, query);
  if (!prepared.ok()) {
    co_await ReplyError(prepared.status(), answer, record);
  } else {
    Answering answering(*this, *std::move(prepared), query, answer, record);
    co_await answering.Run();
  }
  record.total_seconds = (time_.Now() - start).seconds();
  finished_(record);
}

absl::StatusOr<Api::Prepared> Api::Prepare(bool chat, const HttpQuery& query) {
  Prepared prepared;
  ASSIGN_OR_RETURN(prepared.request, chat ? ParseChatRequest(query.body, config_.limits)
                                          : ParseCompletionRequest(query.body, config_.limits));
  const ApiRequest& request = prepared.request;
  if (request.model != config_.model_name) {
    return WithErrorCode(
        absl::NotFoundError(absl::StrCat("no model '", request.model, "'; this gateway serves '",
                                         config_.model_name, "'")),
        "model_not_found");
  }
  tandem::GenerateSpec& spec = prepared.spec;
  if (chat) {
    ASSIGN_OR_RETURN(const ChatPrompt prompt, text_.RenderChat(request.messages));
    RETURN_IF_ERROR(FitText(request, prompt.text));
    ASSIGN_OR_RETURN(spec.prompt_ids, text_.Encode(prompt));
  } else if (request.prompt_text.has_value()) {
    RETURN_IF_ERROR(FitText(request, *request.prompt_text));
    ASSIGN_OR_RETURN(spec.prompt_ids, text_.Encode(*request.prompt_text));
    prepared.prompt_text = *request.prompt_text;
  } else {
    spec.prompt_ids = request.prompt_ids;
  }
  RETURN_IF_ERROR(Fit(prepared));
  if (request.echo && !request.prompt_text.has_value()) {
    for (const uint32_t id : spec.prompt_ids) prepared.prompt_text += text_.TokenBytes(id);
  }
  spec.request =
      RequestId(absl::StrCat(query.request_id, "-", absl::Hex(Draw(), absl::kZeroPad16)));
  spec.sampling = request.sampling;
  spec.stop.stop_token_ids = request.stop_token_ids;
  spec.stop.ignore_eos = request.ignore_eos;
  const uint64_t seed = request.seed.has_value() ? *request.seed : Draw();
  for (uint32_t i = 0; i < request.n; ++i)
    spec.choices.push_back(
        {.choice = i, .attempt = 0, .seed = ChoiceSeed(seed, i), .emitted_ids = {}});
  return prepared;
}

// Ids against the vocabulary, lengths against the context.
absl::Status Api::Fit(Prepared& prepared) const {
  const ApiRequest& request = prepared.request;
  tandem::GenerateSpec& spec = prepared.spec;
  const uint32_t vocabulary = text_.vocabulary_size();
  if (spec.prompt_ids.empty())
    return InvalidParam(request.chat ? "messages" : "prompt", "the prompt is empty");
  for (const uint32_t id : spec.prompt_ids) {
    if (id >= vocabulary)
      return InvalidParam(
          "prompt", absl::StrCat("token id ", id, " is not below the vocabulary's ", vocabulary));
  }
  for (const auto& [id, bias] : request.sampling.logit_bias) {
    if (id >= vocabulary)
      return InvalidParam(
          "logit_bias",
          absl::StrCat("token id ", id, " is not below the vocabulary's ", vocabulary));
  }
  for (const uint32_t id : request.stop_token_ids) {
    if (id >= vocabulary)
      return InvalidParam(
          "stop_token_ids",
          absl::StrCat("token id ", id, " is not below the vocabulary's ", vocabulary));
  }
  return FitTokens(request, spec.prompt_ids.size(), "", spec.stop.max_tokens);
}

// A text that cannot fit however its bytes are cut into tokens is refused before it is encoded,
// which takes far longer than to count it.
absl::Status Api::FitText(const ApiRequest& request, absl::string_view text) const {
  uint32_t ignored = 0;
  return FitTokens(request, text_.LeastTokens(text), absl::StrCat(text.size(), " bytes, at least "),
                   ignored);
}

// `prompt` tokens and those asked for, against the context. `measured` stands before their number
// in the error.
absl::Status Api::FitTokens(const ApiRequest& request, uint64_t prompt, const std::string& measured,
                            uint32_t& max_tokens) const {
  const uint32_t served = relay_.cluster().context_tokens, trained = text_.context_tokens();
  const uint32_t context = served == 0    ? trained
                           : trained == 0 ? served
                                          : std::min(served, trained);
  const uint32_t fallback = request.chat
                                ? (context > prompt ? static_cast<uint32_t>(context - prompt) : 1)
                                : config_.default_completion_tokens;
  max_tokens = request.max_tokens.value_or(fallback);
  if (context == 0 || prompt + max_tokens <= context) return absl::OkStatus();
  return InvalidParam(request.chat ? "messages" : "prompt",
                      absl::StrCat("This model's maximum context length is ", context,
                                   " tokens, but the prompt has ", measured, prompt,
                                   " and max_tokens asks for ", max_tokens),
                      "context_length_exceeded");
}

}  // namespace tandem::gateway
