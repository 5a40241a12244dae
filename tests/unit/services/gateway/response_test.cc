#include <absl/strings/match.h>
#include <absl/strings/str_split.h>
#include <gtest/gtest.h>

#include <boost/json/parse.hpp>
#include <boost/json/serialize.hpp>
#include <cmath>

#include "services/gateway/openai/response.h"
#include "tests/fakes/byte_text_model.h"

namespace tandem::gateway {
namespace {

namespace json = boost::json;
using test::ByteTextModel;

AnswerHead ChatHead() {
  AnswerHead head;
  head.chat = true;
  head.id = "chatcmpl-1";
  head.created = 1700000000;
  head.model = "m";
  head.fingerprint = "tandem-0";
  return head;
}

json::value Event(const std::string& text) {
  EXPECT_TRUE(absl::StartsWith(text, "data: ") && absl::EndsWith(text, "\n\n")) << text;
  return json::parse(text.substr(6, text.size() - 8));
}

TextDelta Delta(const std::string& text) {
  TextDelta delta;
  delta.text = text;
  return delta;
}

TEST(EventWriter, TheFirstDeltaSaysTheRoleAndTheLastTheFinishReason) {
  const ByteTextModel model;
  const EventWriter writer(ChatHead(), model);
  std::string first, next, last;
  writer.Delta(1, Delta("a\"\n"), {}, true, first);
  writer.Delta(1, Delta("b"), {}, false, next);
  writer.Finish(1, "stop", nullptr, last);
  const json::value chunk = Event(first);
  EXPECT_EQ(chunk.at("object").as_string(), "chat.completion.chunk");
  EXPECT_EQ(chunk.at("created").as_int64(), 1700000000);
  EXPECT_EQ(chunk.at("choices").at(0).at("index").as_int64(), 1);
  EXPECT_EQ(chunk.at("choices").at(0).at("delta").at("role").as_string(), "assistant");
  EXPECT_EQ(chunk.at("choices").at(0).at("delta").at("content").as_string(), "a\"\n");
  EXPECT_TRUE(chunk.at("choices").at(0).at("finish_reason").is_null());
  EXPECT_FALSE(chunk.as_object().contains("usage"));
  EXPECT_FALSE(Event(next).at("choices").at(0).at("delta").as_object().contains("role"));
  EXPECT_EQ(Event(last).at("choices").at(0).at("finish_reason").as_string(), "stop");
  EXPECT_TRUE(Event(last).at("choices").at(0).at("delta").as_object().empty());
}

TEST(EventWriter, UsageComesInAChunkWithoutChoices) {
  const ByteTextModel model;
  AnswerHead head = ChatHead();
  head.usage = true;
  const EventWriter writer(head, model);
  std::string delta, usage;
  writer.Delta(0, Delta("a"), {}, true, delta);
  writer.UsageChunk({3, 4}, nullptr, usage);
  EXPECT_TRUE(Event(delta).at("usage").is_null());
  EXPECT_TRUE(Event(usage).at("choices").as_array().empty());
  EXPECT_EQ(Event(usage).at("usage").at("total_tokens").as_int64(), 7);
}

std::vector<ReleasedToken> TwoTokens() {
  ReleasedToken a, b;
  a.id = 'a';
  a.logprob = {-0.5f, {{'a', -0.5f}, {0xC3, -INFINITY}}};
  b.id = 'b';
  b.character_offset = 1;
  b.logprob = {-1.5f, {}};
  return {a, b};
}

TEST(WholeAnswer, ChatHasMessageUsageAndLogprobs) {
  const ByteTextModel model;
  AnswerHead head = ChatHead();
  head.logprobs = true;
  const json::value answer =
      json::parse(WholeAnswer(head, {{0, "ab", TwoTokens(), "length"}}, {5, 2}, nullptr, model));
  EXPECT_EQ(answer.at("object").as_string(), "chat.completion");
  EXPECT_EQ(answer.at("choices").at(0).at("message").at("content").as_string(), "ab");
  EXPECT_EQ(answer.at("usage").at("prompt_tokens").as_int64(), 5);
  const json::value& content = answer.at("choices").at(0).at("logprobs").at("content");
  ASSERT_EQ(content.as_array().size(), 2u);
  EXPECT_EQ(content.at(0).at("token").as_string(), "a");
  EXPECT_EQ(content.at(0).at("bytes").at(0).as_int64(), 'a');
  EXPECT_EQ(content.at(0).at("logprob").as_double(), -0.5);
  EXPECT_EQ(content.at(0).at("top_logprobs").at(1).at("bytes").at(0).as_int64(), 0xC3);
  EXPECT_EQ(content.at(0).at("top_logprobs").at(1).at("logprob").as_int64(), -9999);
  EXPECT_TRUE(content.at(1).at("top_logprobs").as_array().empty());
}

TEST(WholeAnswer, CompletionLogprobsAreParallelArrays) {
  const ByteTextModel model;
  AnswerHead head = ChatHead();
  head.chat = false;
  head.logprobs = head.top_logprobs = true;
  const json::value answer =
      json::parse(WholeAnswer(head, {{0, "ab", TwoTokens(), "stop"}}, {5, 2}, nullptr, model));
  EXPECT_EQ(answer.at("object").as_string(), "text_completion");
  const json::value& logprobs = answer.at("choices").at(0).at("logprobs");
  EXPECT_EQ(logprobs.at("tokens"), json::value({"a", "b"}));
  EXPECT_EQ(logprobs.at("token_logprobs"), json::value({-0.5, -1.5}));
  EXPECT_EQ(logprobs.at("text_offset"), json::value({0, 1}));
  EXPECT_EQ(logprobs.at("top_logprobs").at(0).at("a").as_double(), -0.5);
  EXPECT_TRUE(logprobs.at("top_logprobs").at(1).as_object().empty());
}

TEST(WholeAnswer, TimingsNameWorkersAndSeconds) {
  const ByteTextModel model;
  Timings timings;
  timings.topology = "pd-afd";
  timings.prefill_worker = "p0";
  timings.attention_worker = "a0";
  timings.stages = {{"ffn", "f0", 0.25, 30}};
  timings.ttft_seconds = 0.5;
  timings.decode_steps = {{7, 8}, {}};
  const json::value answer =
      json::parse(WholeAnswer(ChatHead(), {{0, "", {}, "stop"}}, {1, 1}, &timings, model));
  EXPECT_EQ(answer.at("tandem").at("topology").as_string(), "pd-afd");
  EXPECT_EQ(answer.at("tandem").at("stages").at(0).at("worker").as_string(), "f0");
  EXPECT_EQ(answer.at("tandem").at("stages").at(0).at("calls").as_int64(), 30);
  EXPECT_EQ(answer.at("tandem").at("ttft_seconds").as_double(), 0.5);
  EXPECT_EQ(answer.at("tandem").at("decode_steps"), json::parse("[[7, 8], []]"));
}

TEST(Models, ListAndObjectHaveOpenAisShape) {
  const json::value list = json::parse(ModelList("m", 5));
  EXPECT_EQ(list.at("object").as_string(), "list");
  EXPECT_EQ(list.at("data").at(0), json::parse(ModelObject("m", 5)));
  EXPECT_EQ(list.at("data").at(0).at("owned_by").as_string(), "tandem");
}

TEST(WholeAnswer, TokenIdsAreSaidOnlyWhenAskedFor) {
  const ByteTextModel model;
  AnswerHead head = ChatHead();
  const std::vector<AnswerChoice> choices = {{0, "ab", {}, "stop", {7, 8}}};
  EXPECT_EQ(WholeAnswer(head, choices, {1, 2}, nullptr, model).find("token_ids"),
            std::string::npos);
  head.token_ids = true;
  const json::value answer = json::parse(WholeAnswer(head, choices, {1, 2}, nullptr, model));
  EXPECT_EQ(json::serialize(answer.at("choices").at(0).at("token_ids")), "[7,8]");
  std::string event;
  EventWriter(head, model).Delta(0, {}, {9}, false, event);
  EXPECT_NE(event.find(R"("token_ids":[9])"), std::string::npos) << event;
}

}  // namespace
}  // namespace tandem::gateway
