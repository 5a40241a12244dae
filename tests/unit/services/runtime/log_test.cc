#include "services/runtime/log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <limits>
#include <thread>
#include <vector>

#include "services/runtime/utf8.h"

namespace tandem {
namespace {

const LogConfig kText{.daemon = "tandem-router"};
const LogConfig kJson{.daemon = "tandem-router", .format = LogFormat::kJson};
constexpr int64_t kMoment = 1'795'507'200'123;  // 2026-11-24T08:00:00.123Z
const std::string kHostile = "id\"},{\n{\"level\":\"info\",\"event\":\"forged\xFF";

TEST(Log, TextLineHasTimeLevelDaemonEventAndFields) {
  EXPECT_EQ(
      FormatLogLine(kText, kMoment, spdlog::level::info, "sequence_placed",
                    {{"request_id", "r-1"}, {"tokens", 12}, {"seconds", 0.25}, {"local", true}}),
      "2026-11-24T08:00:00.123Z info tandem-router sequence_placed request_id=r-1 tokens=12 "
      "seconds=0.25 local=true");
}

TEST(Log, JsonLineHasTheSameFieldsTyped) {
  EXPECT_EQ(
      FormatLogLine(
          kJson, kMoment, spdlog::level::warn, "worker_lost",
          {{"worker", "a-1"}, {"epoch", uint64_t{18446744073709551615u}}, {"count", int64_t{-3}}}),
      R"({"time":"2026-11-24T08:00:00.123Z","level":"warning","daemon":"tandem-router","event":"worker_lost",)"
      R"("worker":"a-1","epoch":18446744073709551615,"count":-3})");
}

TEST(Log, HostileRequestIdStaysOneJsonStringOnOneLine) {
  const std::string line =
      FormatLogLine(kJson, kMoment, spdlog::level::info, "refused", {{"request_id", kHostile}});
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_TRUE(IsValidUtf8(line));
  EXPECT_NE(line.find(R"("request_id":"id\"},{\u000a{\"level\":\"info\",\"event\":\"forged)"),
            std::string::npos)
      << line;
}

TEST(Log, HostileRequestIdStaysOneTextFieldOnOneLine) {
  const std::string line = FormatLogLine(kText, kMoment, spdlog::level::info, "refused",
                                         {{"request_id", "x level=error\nforged"}, {"empty", ""}});
  EXPECT_EQ(line.find('\n'), std::string::npos);
  EXPECT_NE(line.find(R"(request_id="x level=error\u000aforged" empty="")"), std::string::npos)
      << line;
}

TEST(Log, NumbersThatJsonCannotHoldAreNull) {
  const std::string line =
      FormatLogLine(kJson, kMoment, spdlog::level::info, "x",
                    {{"a", std::nan("")}, {"b", std::numeric_limits<double>::infinity()}});
  EXPECT_NE(line.find(R"("a":null,"b":null)"), std::string::npos) << line;
}

TEST(Log, FormatNamesAreReadStrictly) {
  EXPECT_EQ(*ParseLogFormat("json"), LogFormat::kJson);
  EXPECT_EQ(*ParseLogFormat("text"), LogFormat::kText);
  EXPECT_EQ(ParseLogFormat("JSON").status().message(),
            "log_format: 'JSON' is neither text nor json");
}

// Goal: lines of many threads do not mix, and a level below the configured one writes nothing.
TEST(Log, LinesOfManyThreadsStayWholeAndLevelsAreFiltered) {
  testing::internal::CaptureStderr();
  InitLog({.daemon = "t", .format = LogFormat::kText, .level = spdlog::level::warn});
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; i++) {
    threads.emplace_back([] {
      for (int n = 0; n < 50; n++) {
        LogWarn("kept", {{"n", n}});
        LogInfo("dropped");
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const std::string out = testing::internal::GetCapturedStderr();
  size_t lines = 0, at = 0;
  while (at < out.size()) {
    const size_t end = out.find('\n', at);
    ASSERT_NE(end, std::string::npos);
    EXPECT_NE(out.substr(at, end - at).find(" warning t kept n="), std::string::npos);
    at = end + 1;
    lines++;
  }
  EXPECT_EQ(lines, 200u);
}

}  // namespace
}  // namespace tandem
