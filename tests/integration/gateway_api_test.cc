// What each path of the gateway answers over a real connection: health, models, chats whole and
// streamed.

#include "tests/integration/gateway_api_fixture.h"

namespace tandem::gateway {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

const SequenceEnd kEos{EndReason::kEos, absl::OkStatus()};

TEST_F(GatewayApiTest, LivezAnswersWhateverTheClusterDoes) {
  Start();
  EXPECT_THAT(Ask(Get("/livez")), AllOf(StartsWith("HTTP/1.1 200 "), EndsWith("\r\n\r\nok\n")));
  EXPECT_THAT(Ask(Get("/livez", "POST")),
              AllOf(StartsWith("HTTP/1.1 405 "), HasSubstr("Allow: GET\r\n")));
}

// Both branches, again and again on one connection: g++ 12 freed their text twice.
TEST_F(GatewayApiTest, ReadyzSaysWhyNotAndThenOk) {
  Start();
  test::HttpConnection client(server_->port());
  const auto readyz = [&](const std::string& last) {
    EXPECT_TRUE(client.Send(Get("/readyz")));
    return client.ReadUntil(last);
  };
  const std::string none = "no router is connected\n";
  const std::string reason = "no attention worker is ready: the cluster has only prefill workers\n";
  for (int i = 0; i < 20; ++i) {
    EXPECT_THAT(readyz(none), AllOf(StartsWith("HTTP/1.1 503 "), EndsWith(none)));
  }
  relay_->AddRouter(links_);
  relay_->RouterUp(0, Duration::Seconds(10));
  for (int i = 0; i < 20; ++i) {
    relay_->ClusterChanged(0, {false, reason.substr(0, reason.size() - 1), 0, {}});
    EXPECT_THAT(readyz(reason), AllOf(StartsWith("HTTP/1.1 503 "), EndsWith(reason)));
    relay_->ClusterChanged(0, {true, "", 1000, {}});
    EXPECT_THAT(readyz("ok\n"), AllOf(StartsWith("HTTP/1.1 200 "), EndsWith("\r\n\r\nok\n")));
  }
  api_->Drain();
  EXPECT_THAT(readyz("draining\n"), StartsWith("HTTP/1.1 503 "));
}

TEST_F(GatewayApiTest, AnswersOfEmulatedWorkersSayTheTimeScale) {
  StartReady();
  EXPECT_THAT(Ask(Post("/v1/completions", "{")), Not(HasSubstr("x-tandem-time-scale")));
  relay_->ClusterChanged(0, {true, "", 1000, {{WorkerId("A"), "a:1"}}, 12.5});
  EXPECT_THAT(Ask(Post("/v1/completions", "{")), HasSubstr("\r\nx-tandem-time-scale: 12.5\r\n"));
}

TEST_F(GatewayApiTest, ModelsAreListedAndNamed) {
  Start();
  EXPECT_THAT(Ask(Get("/v1/models")),
              AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr(R"("object":"list")"),
                    HasSubstr(R"("id":"byte-model")"), HasSubstr("1700000000")));
  EXPECT_THAT(Ask(Get("/v1/models/")), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask(Get("/v1/models/byte-model")),
              AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr(R"("id":"byte-model")"),
                    Not(HasSubstr("list"))));
  EXPECT_THAT(Ask(Get("/v1/models/gpt")),
              AllOf(StartsWith("HTTP/1.1 404 "), HasSubstr("model_not_found"), HasSubstr("gpt")));
  EXPECT_THAT(Ask(Get("/v1/modelsandmore")), StartsWith("HTTP/1.1 404 "));
}

TEST_F(GatewayApiTest, WrongPathsMethodsAndTypesAreToldApart) {
  Start();
  EXPECT_THAT(Ask(Get("/v2/x")), AllOf(StartsWith("HTTP/1.1 404 "), HasSubstr("no path /v2/x")));
  EXPECT_THAT(Ask(Get("/v1/chat/completions")),
              AllOf(StartsWith("HTTP/1.1 405 "), HasSubstr("Allow: POST\r\n")));
  EXPECT_THAT(Ask("POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Type: text/plain\r\n"
                  "Content-Length: 2\r\n\r\n{}"),
              StartsWith("HTTP/1.1 415 "));
}

TEST_F(GatewayApiTest, StreamedChatTellsTheRoleEachStepAndTheEnd) {
  StartReady();
  test::HttpConnection client(server_->port());
  ASSERT_TRUE(client.Send(Chat(R"(,"stream":true,"seed":5)")));
  const tandem::GenerateSpec asked = links_.AwaitAsked();
  const std::string prompt = "user: hi\nassistant: ";
  EXPECT_EQ(asked.prompt_ids, *text_.Encode(prompt));
  EXPECT_EQ(asked.stop.max_tokens, 1000 - prompt.size()) << "a chat may fill the context";
  Say(asked.request, 0, "Hel");
  const std::string first = client.ReadUntil("Hel");
  EXPECT_THAT(first, AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("text/event-stream"),
                           HasSubstr(R"("role":"assistant")")));
  Say(asked.request, 3, "lo", kEos);
  const std::string rest = client.ReadUntil("[DONE]");
  EXPECT_THAT(rest, AllOf(HasSubstr(R"("content":"lo")"), HasSubstr(R"("finish_reason":"stop")"),
                          Not(HasSubstr("role"))));
  const RequestRecord record = AwaitRecord();
  EXPECT_EQ(record.status, 200);
  EXPECT_EQ(record.completion_tokens, 5u);
  EXPECT_EQ(record.prompt_tokens, prompt.size());
  // The connection is kept.
  EXPECT_TRUE(client.Send(Get("/livez")));
  EXPECT_THAT(client.ReadUntil("ok\n"), HasSubstr("HTTP/1.1 200 "));
}

// Goal: gaps are between tokens of one choice, whatever the others do in between.
TEST_F(GatewayApiTest, TheRecordTellsTheTimesOfEachChoice) {
  StartReady();
  relay_->ClusterChanged(0, {true, "", 1000, {{WorkerId("A"), "a:1"}}, 8});
  test::HttpConnection client(server_->port());
  ASSERT_TRUE(client.Send(Chat(R"(,"n":2,"stream":true)")));
  const tandem::GenerateSpec asked = links_.AwaitAsked();
  const SequenceEnd done{EndReason::kLength, absl::OkStatus()};
  const auto say = [&](uint32_t choice, uint32_t position, const std::string& text,
                       std::optional<SequenceEnd> end = std::nullopt) {
    time_.Advance(Duration::Milliseconds(100));
    Say(asked.request, position, text, std::move(end), choice);
    client.ReadUntil(absl::StrCat("\"", text, "\""));
  };
  say(0, 0, "a");
  say(1, 0, "b");
  say(0, 1, "c");
  say(1, 1, "d");
  say(0, 2, "e", done);
  time_.Advance(Duration::Milliseconds(100));
  Say(asked.request, 2, "f", done, 1);
  client.ReadUntil("[DONE]");  // not the text first: one read may bring both
  const RequestRecord record = AwaitRecord();
  EXPECT_EQ(record.time_scale, 8);
  EXPECT_NEAR(record.ttft_seconds, 0.1, 1e-9);
  EXPECT_THAT(record.itl_seconds, ::testing::Each(::testing::DoubleNear(0.2, 1e-9)));
  EXPECT_EQ(record.itl_seconds.size(), 4u);
  EXPECT_THAT(record.tpot_seconds, ::testing::ElementsAre(::testing::DoubleNear(0.2, 1e-9),
                                                          ::testing::DoubleNear(0.2, 1e-9)));
}

TEST_F(GatewayApiTest, WholeChatComesInOneAnswerWithItsUsage) {
  StartReady();
  test::HttpConnection client(server_->port());
  ASSERT_TRUE(client.Send(Chat(R"(,"max_tokens":4)")));
  const tandem::GenerateSpec asked = links_.AwaitAsked();
  Say(asked.request, 0, "four", SequenceEnd{EndReason::kLength, absl::OkStatus()});
  EXPECT_THAT(client.ReadUntil("\"usage\""),
              AllOf(StartsWith("HTTP/1.1 200 "), HasSubstr("application/json"),
                    HasSubstr(R"("content":"four")"), HasSubstr(R"("finish_reason":"length")")));
}

TEST_F(GatewayApiTest, StopStringEndsTheTextAndStopsTheSequenceThere) {
  StartReady();
  test::HttpConnection client(server_->port());
  ASSERT_TRUE(client.Send(Chat(R"(,"stream":true,"stop":"END")")));
  const tandem::GenerateSpec asked = links_.AwaitAsked();
  Say(asked.request, 0, "textENDmore");
  const std::string answer = client.ReadUntil("[DONE]");
  EXPECT_THAT(answer, AllOf(HasSubstr(R"("content":"text")"),
                            HasSubstr(R"("finish_reason":"stop")"), Not(HasSubstr("END"))));
  const RecordedLinks::Stopped stop = links_.AwaitStopped();
  EXPECT_EQ(stop.position, 7u) << "the tokens up to the one that completed it";
  EXPECT_EQ(stop.reason, EndReason::kStopped);
}

// Proxies cut a connection on which nothing flows, clients a request without headers.
TEST_F(GatewayApiTest, CommentKeepsAStreamAliveWhileNoTokenComes) {
  ApiConfig config;
  config.first_comment = config.next_comment = Duration::Milliseconds(1);
  StartReady(config);
  test::HttpConnection client(server_->port());
  ASSERT_TRUE(client.Send(Chat()));
  const tandem::GenerateSpec asked = links_.AwaitAsked();
  const std::string begun = client.ReadUntil(": waiting\n\n");
  EXPECT_THAT(begun, AllOf(StartsWith("HTTP/1.1 200 "), Not(HasSubstr("data:"))));
  EXPECT_THAT(client.ReadUntil(": waiting\n\n"), HasSubstr(": waiting\n\n")) << "and again";
  Say(asked.request, 0, "late", kEos);
  EXPECT_THAT(client.ReadUntil("[DONE]"), HasSubstr(R"("content":"late")"));
}

TEST_F(GatewayApiTest, ClientThatLeavesWhileItsRequestIsQueuedAbortsIt) {
  StartReady();
  test::HttpConnection client(server_->port());
  ASSERT_TRUE(client.Send(Chat()));
  const std::string request = links_.AwaitAsked().request.value();
  client.Close();
  EXPECT_EQ(links_.AwaitAborted(), request);
  const RequestRecord record = AwaitRecord();
  EXPECT_TRUE(record.client_left);
  EXPECT_EQ(record.status, 499);
}

TEST_F(GatewayApiTest, ClientThatLeavesInMidStreamStopsItsSequence) {
  StartReady();
  test::HttpConnection client(server_->port());
  ASSERT_TRUE(client.Send(Chat()));
  const tandem::GenerateSpec asked = links_.AwaitAsked();
  Say(asked.request, 0, "abc");
  client.ReadUntil("abc");
  client.Close();
  const RecordedLinks::Stopped stop = links_.AwaitStopped();
  EXPECT_EQ(stop.position, 3u);
  EXPECT_EQ(stop.reason, EndReason::kCancelled);
  EXPECT_EQ(AwaitRecord().status, 499);
  EXPECT_EQ(relay_->in_flight(), 0u);
}

}  // namespace
}  // namespace tandem::gateway
