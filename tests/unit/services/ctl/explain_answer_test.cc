// What `tandemctl explain` asks, and what it makes of the answer.

#include "services/ctl/explain/answer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <cmath>

namespace tandem::ctl {
namespace {

using ::testing::HasSubstr;

constexpr char kAnswer[] = R"({"choices":[{"index":0,"text":" a b","finish_reason":"length",
  "token_ids":[5,6],"logprobs":{"tokens":[" a"," b"],"token_logprobs":[-0.5,-0.1],
  "top_logprobs":[{" a":-0.5},{" c":-3.0," b":-0.1}],"text_offset":[0,2]}}],
  "usage":{"prompt_tokens":9,"completion_tokens":2,"total_tokens":11},
  "tandem":{"topology":"afd","attention_worker":"a0","decode_steps":[[40,41]]}})";

std::string Replaced(const std::string& from, const std::string& to) {
  std::string text = kAnswer;
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  return text.replace(at, from.size(), to);
}

TEST(CompletionBody, AsksForIdsLogprobsAndSteps) {
  ExplainQuestion question;
  question.prompt = "x\"<";
  const auto body = CompletionBody(question, "m");
  ASSERT_TRUE(body.ok());
  const boost::json::value parsed = boost::json::parse(*body);
  EXPECT_EQ(parsed.at("prompt").as_string(), "x\"<");
  EXPECT_EQ(parsed.at("max_tokens"), 4);
  EXPECT_EQ(parsed.at("temperature").to_number<double>(), 0);
  EXPECT_EQ(parsed.at("logprobs"), kExplainCandidates);
  EXPECT_TRUE(parsed.at("return_token_ids").as_bool());
  EXPECT_TRUE(parsed.at("tandem").at("timings").as_bool());
}

TEST(CompletionBody, RefusesAnEmptyPromptAndOneThatIsNoText) {
  EXPECT_EQ(CompletionBody({}, "m").status().message(), "the prompt is empty");
  ExplainQuestion question;
  question.prompt = "\xff";
  EXPECT_EQ(CompletionBody(question, "m").status().message(), "the prompt is not valid UTF-8");
}

TEST(ParseAnswer, TakesTokensAndTheLastOnesStepAndCandidates) {
  const auto answer = ParseAnswer(kAnswer);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->topology, "afd");
  EXPECT_EQ(answer->attention_worker, "a0");
  EXPECT_EQ(answer->prompt_tokens, 9u);
  ASSERT_EQ(answer->tokens.size(), 2u);
  EXPECT_EQ(answer->tokens[1].id, 6u);
  EXPECT_EQ(answer->tokens[1].text, " b");
  EXPECT_EQ(answer->decode_step, 41u);
  ASSERT_EQ(answer->candidates.size(), 2u);
  EXPECT_EQ(answer->candidates[0].text, " b");
  EXPECT_TRUE(answer->candidates[0].chosen);
  EXPECT_NEAR(answer->candidates[0].probability(), std::exp(-0.1), 1e-12);
  EXPECT_FALSE(answer->candidates[1].chosen);
}

TEST(ParseAnswer, SaysWhatIsWrong) {
  EXPECT_THAT(ParseAnswer("{").status().message(), HasSubstr("none that can be explained"));
  EXPECT_THAT(ParseAnswer("[]").status().message(), HasSubstr("none that can be explained"));
  EXPECT_EQ(ParseAnswer(Replaced("[[40,41]]", "[[40]]")).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(ParseAnswer(Replaced("[[40,41]]", "[[40,0]]")).status().message(),
              HasSubstr("a0 does not say which step"));
  EXPECT_THAT(ParseAnswer(Replaced("[5,6]", "[]")).status().message(),
              HasSubstr("without a token"));
  EXPECT_TRUE(ParseAnswer(Replaced("[{\" a\":-0.5},{\" c\":-3.0,\" b\":-0.1}]", "null")).ok());
}

TEST(ErrorOf, IsTheMessageInOneLine) {
  EXPECT_EQ(ErrorOf(R"({"error":{"message":"too\nlong\u001b[2J"}})"), "too\\nlong\\x1b[2J");
  EXPECT_EQ(ErrorOf("<html>"), "<html>");
}

}  // namespace
}  // namespace tandem::ctl
