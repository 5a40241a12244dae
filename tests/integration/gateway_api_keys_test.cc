// API keys as a client of the gateway meets them.

#include "tests/integration/gateway_api_fixture.h"

namespace tandem::gateway {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

constexpr char kSecret[] = "sk-of-alice";

ApiConfig Keyed() {
  ApiConfig config;
  config.key_name = [](absl::string_view key) -> std::optional<std::string> {
    if (key == kSecret) return "alice";
    return std::nullopt;
  };
  return config;
}

std::string With(const std::string& authorization, std::string query) {
  query.insert(query.find("\r\n") + 2, absl::StrCat("Authorization: ", authorization, "\r\n"));
  return query;
}

TEST_F(GatewayApiTest, WithoutAKeyEveryPathOfTheApiIs401) {
  StartReady(Keyed());
  for (const std::string& query :
       {Chat(), Post("/v1/completions", "{}"), Get("/v1/models"), Get("/v1/models/byte-model"),
        Get("/v1/nothing"), Get("/v1"), Get("/v1/chat/completions")}) {
    EXPECT_THAT(Ask(query),
                AllOf(StartsWith("HTTP/1.1 401 "), HasSubstr("WWW-Authenticate: Bearer\r\n"),
                      HasSubstr(R"("type":"invalid_request_error")"),
                      HasSubstr(R"("code":"invalid_api_key")"), HasSubstr("No API key")))
        << query;
  }
  EXPECT_EQ(links_.asked(), 0u);
}

TEST_F(GatewayApiTest, AWrongKeyIs401AndIsNotRepeated) {
  StartReady(Keyed());
  for (const char* wrong : {"Bearer sk-of-malice", "Bearer  ", "Basic sk-of-alice", "sk-of-alice",
                            "Bearer sk-of-alice2", "Bearer sk-of-alice sk-of-alice"}) {
    EXPECT_THAT(Ask(With(wrong, Chat())), AllOf(StartsWith("HTTP/1.1 401 "), Not(HasSubstr("sk-"))))
        << wrong;
  }
  EXPECT_EQ(links_.asked(), 0u);
}

TEST_F(GatewayApiTest, RefusalsAreRecordedUnderPathsThatAreKnown) {
  StartReady(Keyed());
  Ask(Get("/v1/of-the-clients-choice"));
  const RequestRecord record = AwaitRecord();
  EXPECT_EQ(record.status, 401);
  EXPECT_EQ(record.route, "other");
  EXPECT_EQ(record.key_name, "");
}

TEST_F(GatewayApiTest, TheRightKeyIsLetInAndItsNameRecorded) {
  StartReady(Keyed());
  EXPECT_THAT(Ask(With("Bearer sk-of-alice", Get("/v1/models"))), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask(With("bearer   sk-of-alice  ", Get("/v1/models"))), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask(With("Bearer sk-of-alice", Post("/v1/completions", "{}"))),
              StartsWith("HTTP/1.1 400 "));
  const RequestRecord record = AwaitRecord();
  EXPECT_EQ(record.status, 400);
  EXPECT_EQ(record.key_name, "alice");
}

TEST_F(GatewayApiTest, HealthAsksForNoKey) {
  StartReady(Keyed());
  EXPECT_THAT(Ask(Get("/livez")), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask(Get("/readyz")), StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(Ask(Get("/nothing")), StartsWith("HTTP/1.1 404 "));
}

TEST_F(GatewayApiTest, WithoutAListAKeyIsIgnored) {
  StartReady();
  EXPECT_THAT(Ask(With("Bearer anything", Get("/v1/models"))), StartsWith("HTTP/1.1 200 "));
}

}  // namespace
}  // namespace tandem::gateway
