#include "services/ctl/conformance_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace tandem::ctl {
namespace {

using ::testing::HasSubstr;

constexpr char kJson[] =
    R"({"address": "h:1", "model": "m", "reference": "gguf:0/ggml/whole", "cases": [
  {"name": "shape/one_row", "passed": true, "what": "1 rows", "first_difference": ""},
  {"name": "batch/alone", "passed": false, "what": "row 1 of 2 has other bits\u001b[2J than alone",
   "first_difference": "row 0 element 17: 0.25, not 0.5"}]})";

TEST(ConformanceReport, SaysCaseVerdictAndFirstDifference) {
  const auto report = ReadConformanceReport(kJson);
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->failed(), 1u);
  const std::string text = ConformanceText(*report);
  EXPECT_THAT(text, HasSubstr("shape/one_row  pass     1 rows\n"));
  EXPECT_THAT(text, HasSubstr("batch/alone    FAIL     row 1 of 2 has other bits"));
  EXPECT_THAT(text, HasSubstr("first difference: row 0 element 17: 0.25, not 0.5\n"));
  EXPECT_THAT(text, HasSubstr("1 of 2 cases passed: m at h:1, against gguf:0/ggml/whole\n"));
  EXPECT_EQ(text.find('\x1b'), std::string::npos) << "a server's words reach no terminal raw";
}

TEST(ConformanceReport, WhatIsNoneIsRefused) {
  for (const char* text : {"", "[]", "{}", R"({"address": 1, "model": "m", "reference": "r"})",
                           R"({"address": "a", "model": "m", "reference": "r", "cases": [{}]})"}) {
    const auto report = ReadConformanceReport(text);
    EXPECT_EQ(report.status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

}  // namespace
}  // namespace tandem::ctl
