#include "services/ctl/closed_loop.h"

#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <set>

namespace tandem::ctl {
namespace {

TEST(ClosedLoop, EachPromptIsItsOwn) {
  std::set<std::string> bodies;
  for (uint64_t client = 0; client < 20; ++client) {
    for (uint64_t number = 0; number < 20; ++number) {
      const std::string body =
          CompletionOf("m", client, number, {.prompt_tokens = 7, .output_tokens = 30});
      EXPECT_TRUE(bodies.insert(body).second) << body;
      const boost::json::value json = boost::json::parse(body);
      EXPECT_EQ(json.at("prompt").as_array().size(), 7u);
      EXPECT_EQ(json.at("max_tokens").to_number<int>(), 30);
      EXPECT_TRUE(json.at("ignore_eos").as_bool());
    }
  }
}

TEST(ClosedLoop, FirstRequestsEndOneAfterTheOther) {
  EXPECT_EQ(FirstOutput(0, 4, 101), 1u);
  EXPECT_EQ(FirstOutput(1, 4, 101), 26u);
  EXPECT_EQ(FirstOutput(3, 4, 101), 76u);
  for (uint64_t client = 0; client < 8; ++client) EXPECT_EQ(FirstOutput(client, 8, 1), 1u);
}

TEST(ClosedLoop, TellsWhyARequestFailed) {
  ClosedLoop clients("127.0.0.1:1", "m", 2, {.prompt_tokens = 1, .output_tokens = 1});
  while (clients.error().ok()) std::this_thread::yield();
  EXPECT_TRUE(absl::IsUnavailable(clients.error())) << clients.error();
  EXPECT_EQ(clients.begun(), 0u);
}

}  // namespace
}  // namespace tandem::ctl
