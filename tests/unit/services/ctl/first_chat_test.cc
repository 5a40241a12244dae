#include "services/ctl/first_chat.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "services/ctl/http_client.h"

namespace tandem::ctl {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST(SseReader, FindsTheSameEventsHoweverThePiecesFall) {
  const std::string stream =
      ": keep-alive\r\n\r\ndata: {\"a\":1}\n\ndata:two\r\n\ndata: [DONE]\n\n";
  for (size_t piece = 1; piece <= stream.size(); ++piece) {
    std::vector<std::string> events;
    SseReader reader([&](absl::string_view data) { events.emplace_back(data); });
    for (size_t at = 0; at < stream.size(); at += piece)
      reader.Add(absl::string_view(stream).substr(at, piece));
    EXPECT_THAT(events, ElementsAre("{\"a\":1}", "two", "[DONE]")) << "pieces of " << piece;
  }
}

TEST(ChatStream, CollectsTextAndTimings) {
  ChatStream chat;
  EXPECT_EQ(*chat.Add(R"({"choices":[{"index":0,"delta":{"role":"assistant","content":"Hel"}}]})"),
            "Hel");
  EXPECT_EQ(*chat.Add(R"({"choices":[{"index":0,"delta":{"content":"lo"}}]})"), "lo");
  EXPECT_EQ(
      *chat.Add(
          R"({"choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"tandem":{"topology":"pd-afd",
      "stages":[{"stage":"ffn","worker":"ffn-0","seconds":0.25,"calls":300}],"kv_transfer_seconds":0.001,
      "ttft_seconds":0.05}})"),
      "");
  EXPECT_FALSE(chat.done());
  EXPECT_EQ(*chat.Add("[DONE]"), "");
  EXPECT_TRUE(chat.done());
  EXPECT_THAT(chat.DescribeTimings(),
              AllOf(HasSubstr("pd-afd"), HasSubstr("50.0 ms"), HasSubstr("ffn-0"),
                    HasSubstr("250.0 ms"), HasSubstr("300")));
}

TEST(ChatStream, AnErrorInTheStreamIsAnError) {
  ChatStream chat;
  const absl::Status status =
      chat.Add(R"({"error":{"message":"worker lost","type":"server_error"}})").status();
  EXPECT_EQ(std::string(status.message()), "worker lost");
}

TEST(ChatStream, RubbishIsAnError) {
  ChatStream chat;
  EXPECT_FALSE(chat.Add("{").ok());
  EXPECT_FALSE(chat.Add("[]").ok());
  EXPECT_FALSE(chat.Add(R"({"choices":1})").ok());
}

}  // namespace
}  // namespace tandem::ctl
