#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include "services/gateway/openai/error.h"
#include "services/gateway/openai/request.h"

namespace tandem::gateway {
namespace {

constexpr char kHi[] = R"("model":"m","messages":[{"role":"user","content":"hi"}])";

std::string Chat(const std::string& fields) {
  return absl::StrCat("{", kHi, fields.empty() ? "" : ",", fields, "}");
}
std::string Completion(const std::string& fields) {
  return absl::StrCat(R"({"model":"m","prompt":"hi")", fields.empty() ? "" : ",", fields, "}");
}

struct Bad {
  std::string body;
  std::string param;
  std::string in_message;
};

template <typename Parse>
void ExpectRefused(const Bad& bad, Parse parse) {
  SCOPED_TRACE(bad.body.substr(0, 200));
  const absl::StatusOr<ApiRequest> spec = parse(bad.body, RequestLimits{});
  ASSERT_FALSE(spec.ok());
  const ApiError error = ToApiError(spec.status());
  EXPECT_EQ(error.http_status, 400);
  EXPECT_EQ(error.type, "invalid_request_error");
  EXPECT_EQ(error.param, bad.param);
  EXPECT_TRUE(absl::StrContains(error.message, bad.in_message)) << error.message;
}

TEST(ParseChatRequest, RefusesABodyThatIsNoJsonObject) {
  const std::string deep(100, '[');
  const Bad cases[] = {
      {"", "", "not valid JSON"},
      {"{", "", "not valid JSON"},
      {"{\"a\":}", "", "near byte 5"},
      {"[1]", "", "an array, expected a JSON object"},
      {"\"x\"", "", "expected a JSON object"},
      {Chat("") + "x", "", "not valid JSON"},
      {deep, "", "not valid JSON"},
      {absl::StrCat(R"({"model":)", deep), "", "not valid JSON"},
      {Chat("\"user\":\"\xFF\xFE\""), "", "not valid JSON"},
      {Chat("\"user\":\"\xED\xA0\x80\""), "", "not valid JSON"},
  };
  for (const Bad& bad : cases) ExpectRefused(bad, ParseChatRequest);
}

TEST(ParseChatRequest, RefusesBadMessagesNamingTheOne) {
  const Bad cases[] = {
      {R"({"messages":[{"role":"user","content":"hi"}]})", "model", "missing"},
      {R"({"model":7,"messages":[]})", "model", "model is 7"},
      {R"({"model":"m"})", "messages", "missing"},
      {R"({"model":"m","messages":"hi"})", "messages", "a string"},
      {R"({"model":"m","messages":[]})", "messages", "empty"},
      {R"({"model":"m","messages":["hi"]})", "messages[0]", "a string"},
      {R"({"model":"m","messages":[{"content":"hi"}]})", "messages[0].role", "missing"},
      {R"({"model":"m","messages":[{"role":"wizard","content":"hi"}]})", "messages[0].role",
       "'wizard'"},
      {R"({"model":"m","messages":[{"role":"tool","content":"hi"}]})", "messages[0].role", "tools"},
      {R"({"model":"m","messages":[{"role":"user"}]})", "messages[0].content", "missing"},
      {R"({"model":"m","messages":[{"role":"user","content":null}]})", "messages[0].content",
       "missing"},
      {R"({"model":"m","messages":[{"role":"user","content":5}]})", "messages[0].content", "5"},
      {R"({"model":"m","messages":[{"role":"user","content":[]}]})", "messages[0].content",
       "no part"},
      {R"({"model":"m","messages":[{"role":"user","content":[{"type":"image_url","image_url":{}}]}]})",
       "messages[0].content[0].type", "image_url"},
      {R"({"model":"m","messages":[{"role":"user","content":[{"type":"text"}]}]})",
       "messages[0].content[0].text", "missing"},
      {R"({"model":"m","messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"x"}]}]})",
       "messages[0].tool_calls", "tools"},
  };
  for (const Bad& bad : cases) ExpectRefused(bad, ParseChatRequest);
}

TEST(ParseChatRequest, RefusesBadParametersNamingParameterAndNumber) {
  const Bad cases[] = {
      {Chat(R"("temperature":"hot")"), "temperature", "a string"},
      {Chat(R"("temperature":2.5)"), "temperature", "2.5"},
      {Chat(R"("top_p":1e-60)"), "top_p", "1e-60"},
      {Chat(R"("repetition_penalty":1e-60)"), "repetition_penalty", "1e-60"},
      {Chat(R"("temperature":-0.1)"), "temperature", "-0.1"},
      {Chat(R"("temperature":1e308)"), "temperature", "expected a number from 0 to 2"},
      {Chat(R"("temperature":true)"), "temperature", "true"},
      {Chat(R"("top_p":0)"), "top_p", "above 0"},
      {Chat(R"("top_p":1.01)"), "top_p", "1.01"},
      {Chat(R"("min_p":-1)"), "min_p", "-1"},
      {Chat(R"("top_k":-2)"), "top_k", "-2"},
      {Chat(R"("top_k":1.5)"), "top_k", "1.5"},
      {Chat(R"("repetition_penalty":0)"), "repetition_penalty", "0"},
      {Chat(R"("presence_penalty":3)"), "presence_penalty", "3"},
      {Chat(R"("frequency_penalty":-3)"), "frequency_penalty", "-3"},
      {Chat(R"("max_tokens":0)"), "max_tokens", "0"},
      {Chat(R"("max_tokens":-5)"), "max_tokens", "-5"},
      {Chat(R"("max_tokens":"10")"), "max_tokens", "a string"},
      {Chat(R"("max_tokens":10.5)"), "max_tokens", "10.5"},
      {Chat(R"("max_tokens":99999999999)"), "max_tokens", "99999999999"},
      {Chat(R"("max_tokens":99999999999999999999999)"), "max_tokens", "max_tokens is 1e+23"},
      {Chat(R"("max_completion_tokens":0)"), "max_completion_tokens", "0"},
      {Chat(R"("n":0)"), "n", "0"},
      {Chat(R"("n":9)"), "n", "9, expected an integer from 1 to 8"},
      {Chat(R"("n":[1])"), "n", "an array"},
      {Chat(R"("stop":7)"), "stop", "7"},
      {Chat(R"("stop":"")"), "stop", "empty"},
      {Chat(R"("stop":["a",3])"), "stop", "3"},
      {Chat(R"("stop":["a","b","c","d","e"])"), "stop", "5 strings, at most 4"},
      {Chat(absl::StrCat(R"("stop":")", std::string(257, 'x'), "\"")), "stop",
       "257 bytes, at most 256"},
      {Chat(R"("stop_token_ids":[-1])"), "stop_token_ids[0]", "-1"},
      {Chat(R"("seed":1.5)"), "seed", "1.5"},
      {Chat(R"("seed":"x")"), "seed", "a string"},
      {Chat(R"("logit_bias":[])"), "logit_bias", "an array"},
      {Chat(R"("logit_bias":{"x":1})"), "logit_bias", "'x'"},
      {Chat(R"("logit_bias":{"5":101})"), "logit_bias.5", "101"},
      {Chat(R"("logit_bias":{"-5":1})"), "logit_bias", "'-5'"},
      {Chat(R"("logprobs":3)"), "logprobs", "3"},
      {Chat(R"("logprobs":true,"top_logprobs":21)"), "top_logprobs", "21"},
      {Chat(R"("top_logprobs":2)"), "top_logprobs", "needs logprobs"},
      {Chat(R"("stream":"yes")"), "stream", "a string"},
      {Chat(R"("stream_options":{"include_usage":true})"), "stream_options", "stream: true"},
      {Chat(R"("stream":true,"stream_options":{"include_usage":1})"),
       "stream_options.include_usage", "1"},
      {Chat(R"("tandem":true)"), "tandem", "true"},
      {Chat(R"("tools":[{"type":"function"}])"), "tools", "not supported"},
      {Chat(R"("functions":[{"name":"f"}])"), "functions", "not supported"},
      {Chat(R"("tool_choice":"required")"), "tool_choice", "not supported"},
      {Chat(R"("response_format":{"type":"json_object"})"), "response_format", "json_object"},
      {Chat(R"("response_format":{"type":"json_schema","json_schema":{}})"), "response_format",
       "json_schema"},
      {Chat(R"("response_format":"text")"), "response_format", "object"},
      {Chat(R"("modalities":["text","audio"])"), "modalities", "text"},
      {Chat(R"("guided_regex":"a+")"), "guided_regex", "constrained"},
  };
  for (const Bad& bad : cases) ExpectRefused(bad, ParseChatRequest);
}

TEST(ParseCompletionRequest, RefusesBadInputNamingParameterAndNumber) {
  const Bad cases[] = {
      {R"({"model":"m"})", "prompt", "missing"},
      {R"({"model":"m","prompt":""})", "prompt", "empty"},
      {R"({"model":"m","prompt":[]})", "prompt", "empty"},
      {R"({"model":"m","prompt":[[]]})", "prompt", "empty"},
      {R"({"model":"m","prompt":5})", "prompt", "5"},
      {R"({"model":"m","prompt":["a","b"]})", "prompt", "2 prompts"},
      {R"({"model":"m","prompt":[1,"a"]})", "prompt[1]", "a string"},
      {R"({"model":"m","prompt":[1,-7]})", "prompt[1]", "-7"},
      {R"({"model":"m","prompt":[4294967296]})", "prompt[0]", "4294967296"},
      {Completion(R"("max_tokens":0)"), "max_tokens", "0"},
      {Completion(R"("logprobs":6)"), "logprobs", "6"},
      {Completion(R"("logprobs":true)"), "logprobs", "true"},
      {Completion(R"("echo":true,"logprobs":1)"), "echo", "logprobs"},
      {Completion(R"("suffix":"end")"), "suffix", "not supported"},
      {Completion(R"("best_of":3)"), "best_of", "best_of 3 with n 1"},
  };
  for (const Bad& bad : cases) ExpectRefused(bad, ParseCompletionRequest);
}

TEST(ParseChatRequest, AnErrorQuotesOnlyTheStartOfALongValue) {
  const std::string role(1 << 20, 'r');
  const auto spec = ParseChatRequest(
      absl::StrCat(R"({"model":"m","messages":[{"role":")", role, R"("}]})"), RequestLimits{});
  ASSERT_FALSE(spec.ok());
  EXPECT_LE(spec.status().message().size(), 1024u);
}

TEST(ParseChatRequest, ReadsEveryField) {
  const auto spec = ParseChatRequest(
      R"({"model":"m","messages":[{"role":"developer","content":"be kind"},{"role":"assistant","content":null},
          {"role":"user","name":"x","content":[{"type":"text","text":"a"},{"type":"text","text":"b"}]}],
          "temperature":0,"top_p":0.5,"min_p":0.1,"top_k":-1,"repetition_penalty":1.1,"presence_penalty":-2,
          "frequency_penalty":2,"max_tokens":7,"max_completion_tokens":9,"n":2,"stop":["x","y"],"seed":-3,
          "logit_bias":{"15":-100},"logprobs":true,"top_logprobs":2,"stream":true,"ignore_eos":true,
          "stream_options":{"include_usage":true},"tandem":{"timings":true},"stop_token_ids":[4],
          "tools":[],"tool_choice":"none","response_format":{"type":"text"},"modalities":["text"],"unknown":{"a":[1]}})",
      RequestLimits{});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_TRUE(spec->chat);
  ASSERT_EQ(spec->messages.size(), 3u);
  EXPECT_EQ(spec->messages[0].role, "system");
  EXPECT_EQ(spec->messages[1].content, "");
  EXPECT_EQ(spec->messages[2].content, "a\nb");
  EXPECT_EQ(spec->sampling.temperature, 0.f);
  EXPECT_EQ(spec->sampling.top_p, 0.5f);
  EXPECT_EQ(spec->sampling.min_p, 0.1f);
  EXPECT_EQ(spec->sampling.top_k, 0u);
  EXPECT_EQ(spec->sampling.repetition_penalty, 1.1f);
  EXPECT_EQ(spec->sampling.presence_penalty, -2.f);
  EXPECT_EQ(spec->sampling.frequency_penalty, 2.f);
  EXPECT_EQ(spec->max_tokens, 9u);
  EXPECT_EQ(spec->n, 2u);
  EXPECT_EQ(spec->stop, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(spec->stop_token_ids, (std::vector<uint32_t>{4}));
  EXPECT_EQ(spec->seed, static_cast<uint64_t>(-3));
  EXPECT_EQ(spec->sampling.logit_bias.at(15), -100.f);
  EXPECT_EQ(spec->sampling.top_logprobs, 2u);
  EXPECT_TRUE(spec->stream && spec->include_usage && spec->timings && spec->ignore_eos);
}

TEST(ParseCompletionRequest, TakesTextOrIdsAndZeroTokensWithEcho) {
  const auto text = ParseCompletionRequest(
      Completion(R"("echo":true,"max_tokens":0,"best_of":1,"suffix":null)"), {});
  ASSERT_TRUE(text.ok()) << text.status();
  EXPECT_EQ(text->prompt_text, "hi");
  EXPECT_EQ(text->max_tokens, 0u);
  for (const char* body :
       {R"({"model":"m","prompt":[1,2]})", R"({"model":"m","prompt":[[1,2]]})"}) {
    const auto ids = ParseCompletionRequest(body, {});
    ASSERT_TRUE(ids.ok()) << ids.status();
    EXPECT_EQ(ids->prompt_ids, (std::vector<uint32_t>{1, 2}));
    EXPECT_FALSE(ids->prompt_text.has_value());
  }
  EXPECT_EQ(ParseCompletionRequest(R"({"model":"m","prompt":["one"]})", {})->prompt_text, "one");
}

TEST(ParseChatRequest, NullMeansAbsent) {
  const auto spec = ParseChatRequest(
      Chat(
          R"("temperature":null,"stop":null,"n":null,"tools":null,"seed":null,"logit_bias":null,"max_tokens":null)"),
      {});
  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_FALSE(spec->max_tokens.has_value());
}

TEST(ApiError, StatusCodesBecomeHttpStatusesWithOpenAisObject) {
  const ApiError full =
      ToApiError(WithRetryAfter(absl::ResourceExhaustedError("256 requests are queued"), 2));
  EXPECT_EQ(full.http_status, 429);
  EXPECT_EQ(full.retry_after_seconds, 2);
  EXPECT_EQ(
      ErrorBody(full),
      R"({"error":{"message":"256 requests are queued","type":"rate_limit_error","param":null,"code":"rate_limit_exceeded"}})");
  EXPECT_EQ(ToApiError(absl::UnavailableError("x")).http_status, 503);
  EXPECT_EQ(ToApiError(absl::InternalError("x")).http_status, 500);
  const ApiError missing =
      ToApiError(WithErrorCode(absl::NotFoundError("no \"m\""), "model_not_found"));
  EXPECT_EQ(missing.http_status, 404);
  EXPECT_EQ(
      ErrorBody(missing),
      R"({"error":{"message":"no \"m\"","type":"invalid_request_error","param":null,"code":"model_not_found"}})");
}

}  // namespace
}  // namespace tandem::gateway
