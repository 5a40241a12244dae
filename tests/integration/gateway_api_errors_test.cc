// Errors as a client of the gateway meets them: a status of their own before the first byte, an
// event of the stream after it.

#include "tests/integration/gateway_api_fixture.h"

namespace tandem::gateway {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

TEST_F(GatewayApiTest, WithoutARouterARequestGets503) {
  Start();
  EXPECT_THAT(Ask(Chat()), AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("no router is connected"),
                                 HasSubstr("Retry-After: 1\r\n"), HasSubstr("application/json")));
  EXPECT_EQ(AwaitRecord().status, 503);
}

TEST_F(GatewayApiTest, DrainingGatewayRefusesNewRequests) {
  StartReady();
  api_->Drain();
  EXPECT_THAT(Ask(Chat()), AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("draining"),
                                 HasSubstr("Retry-After: 1\r\n")));
  EXPECT_EQ(links_.asked(), 0u);
}

// As at the end of a drain: the client hears it, router and worker have nothing left of it.
TEST_F(GatewayApiTest, WhenAllFailEachHearsWhyAndNothingIsLeft) {
  StartReady();
  test::HttpConnection streams(server_->port()), waits(server_->port());
  ASSERT_TRUE(streams.Send(Chat()));
  Say(links_.AwaitAsked().request, 0, "so far");
  streams.ReadUntil("so far");
  ASSERT_TRUE(waits.Send(Chat("")));
  links_.AwaitAsked(2);
  EXPECT_FALSE(server_->Drain(Duration::Milliseconds(1)));
  const absl::Status why = absl::UnavailableError("the gateway stops");  // see the next test
  relay_->FailAll(why);
  EXPECT_THAT(streams.ReadUntil("0\r\n\r\n"),
              AllOf(HasSubstr("data: {\"error\":"), HasSubstr("the gateway stops"),
                    Not(HasSubstr("[DONE]"))));
  EXPECT_THAT(waits.ReadAll(), AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr("the gateway stops")));
  EXPECT_TRUE(server_->Drain(Duration::Seconds(test::kDeadlineSeconds)));
  EXPECT_EQ(links_.AwaitStopped().position, 6u);
  EXPECT_EQ(relay_->in_flight(), 0u);
}

TEST_F(GatewayApiTest, RefusalBeforeTheFirstTokenIsAStatusWithRetryAfter) {
  StartReady();
  test::HttpConnection client(server_->port());
  ASSERT_TRUE(client.Send(Chat()));
  const RequestId request = links_.AwaitAsked().request;
  // Until the answer is there: the thread that gives it shares the status, and counts its copies
  // where TSan does not see (Debian's libabsl_status).
  const RefusedInfo refused{
      {request, 0, 0}, {EndReason::kFailed, absl::ResourceExhaustedError("queue is full")}, 1.2};
  relay_->Refused(refused);
  EXPECT_THAT(client.ReadUntil("rate_limit_exceeded"),
              AllOf(StartsWith("HTTP/1.1 429 "), HasSubstr("Retry-After: 2\r\n"),
                    HasSubstr("queue is full"), Not(HasSubstr("data:"))));
}

TEST_F(GatewayApiTest, ErrorWithinAStreamIsItsLastEventAfterTheTextSoFar) {
  StartReady();
  test::HttpConnection client(server_->port());
  ASSERT_TRUE(client.Send(Chat()));
  const RequestId request = links_.AwaitAsked().request;
  Say(request, 0, "so far");
  client.ReadUntil("so far");
  Say(request, 6, "!", SequenceEnd{EndReason::kFailed, absl::InternalError("poison rows")});
  const std::string rest = client.ReadUntil("0\r\n\r\n");
  EXPECT_THAT(rest,
              AllOf(HasSubstr(R"("content":"!")"), HasSubstr("data: {\"error\":"),
                    HasSubstr("poison rows"), HasSubstr("server_error"), Not(HasSubstr("[DONE]"))));
  EXPECT_LT(rest.find(R"("content":"!")"), rest.find("error"));
  EXPECT_EQ(AwaitRecord().status, 500);
}

TEST_F(GatewayApiTest, GatewayThatFellBehindItsWorkerSaysSoByCode) {
  StartReady();
  test::HttpConnection client(server_->port());
  ASSERT_TRUE(client.Send(Chat(R"(,"max_tokens":9)")));
  const RequestId request = links_.AwaitAsked().request;
  Say(request, 0, "abc");
  relay_->WorkerDown(WorkerId("A"), GatewayOverloadedError());
  EXPECT_THAT(client.ReadUntil("\"gateway_overloaded\""),
              AllOf(StartsWith("HTTP/1.1 503 "), HasSubstr(R"("code":"gateway_overloaded")")));
}

TEST_F(GatewayApiTest, FailureOfOneChoiceEndsTheOthers) {
  StartReady();
  test::HttpConnection client(server_->port());
  ASSERT_TRUE(client.Send(Chat(R"(,"stream":true,"n":2)")));
  const RequestId request = links_.AwaitAsked().request;
  Say(request, 0, "one", std::nullopt, 0);
  Say(request, 0, "two", std::nullopt, 1);
  client.ReadUntil("two");
  Say(request, 3, "", SequenceEnd{EndReason::kFailed, absl::UnavailableError("no FFN worker")}, 0);
  EXPECT_THAT(client.ReadUntil("0\r\n\r\n"), HasSubstr("no FFN worker"));
  EXPECT_EQ(links_.AwaitStopped().sequence.choice, 1u);
}

// ByteTextModel's longest token has 11 bytes, the cluster's context 1,000 tokens.
TEST_F(GatewayApiTest, TextThatCannotFitIsRefusedBeforeItIsEncoded) {
  StartReady();
  const auto complete = [&](size_t bytes, const std::string& more) {
    return Ask(Post("/v1/completions", absl::StrCat(R"({"model":"byte-model","prompt":")",
                                                    std::string(bytes, 'x'), "\"", more, "}")));
  };
  EXPECT_THAT(complete(4 << 20, ""),
              AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr(R"("code":"context_length_exceeded")"),
                    HasSubstr(R"("param":"prompt")"),
                    HasSubstr("maximum context length is 1000 tokens, but the prompt has 4194304 "
                              "bytes, at least 381301 and max_tokens asks for 16")));
  EXPECT_THAT(complete(990 * 11 + 1, R"(,"max_tokens":10)"), HasSubstr("at least 991"));
  EXPECT_EQ(text_.encoded_bytes(), 0u);
  // What might fit is counted; here each byte turns out to be a token.
  EXPECT_THAT(complete(990 * 11, R"(,"max_tokens":10)"),
              AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr("the prompt has 10890 and"),
                    HasSubstr(R"("code":"context_length_exceeded")")));
  EXPECT_EQ(text_.encoded_bytes(), 990u * 11);
}

TEST_F(GatewayApiTest, ChatThatCannotFitIsRefusedBeforeItIsEncoded) {
  StartReady();
  const std::string answer =
      Ask(Post("/v1/chat/completions",
               absl::StrCat(R"({"model":"byte-model","messages":[{"role":"user","content":")",
                            std::string(1 << 20, 'x'), "\"}]}")));
  EXPECT_THAT(answer,
              AllOf(StartsWith("HTTP/1.1 400 "), HasSubstr(R"("code":"context_length_exceeded")"),
                    HasSubstr(R"("param":"messages")"), HasSubstr("at least ")));
  EXPECT_EQ(text_.encoded_bytes(), 0u);
}

// What a client cannot take is not kept for it: past the bound its answer is over, and it is told.
TEST_F(GatewayApiTest, AnswerThatOverflowsItsBoundEndsWithAnErrorAndNotInSilence) {
  ApiConfig config;
  config.max_undelivered_events = 0;
  StartReady(config);
  size_t asked = 0;
  for (const char* mode : {R"(,"stream":true)", R"(,"stream":false)"}) {
    test::HttpConnection client(server_->port());
    ASSERT_TRUE(client.Send(Chat(mode)));
    const RequestId request = links_.AwaitAsked(++asked).request;
    Say(request, 0, "abc");
    EXPECT_THAT(client.ReadUntil("behind its answer"), HasSubstr("behind its answer"));
    EXPECT_EQ(links_.AwaitStopped().reason, EndReason::kCancelled);
  }
}

}  // namespace
}  // namespace tandem::gateway
