// One report for three readers; a prompt that is hostile to each.

#include "services/ctl/explain/render.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <absl/strings/str_split.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <boost/json.hpp>

#include "services/ctl/table.h"
#include "tests/unit/services/ctl/explain_world.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kHostile[] = "</script><script>alert(1)</script>\x1b[2J\x07\u202e & <!-- \"'";

ExplainReport HostileReport(ExplainInput input = AfdInput()) {
  input.question.prompt = kHostile;
  input.answer.tokens[1].text = kHostile;
  input.answer.candidates[0].text = kHostile;
  input.answer.topology = kHostile;
  return *MakeExplainReport(input, model::Shipped(), "");
}

TEST(ExplainText, FitsTheTerminalAndSaysEveryPart) {
  const ExplainReport report = *MakeExplainReport(AfdInput(), model::Shipped(), "");
  const std::string text = ExplainText(report, std::nullopt);
  for (const char* words : {"\"count\", 100 tokens",
                            "decode step 7 of attention-0, at position 100",
                            "1 sequence in 1 micro-batch: 1 row attending to 101 positions",
                            "layers 0-31: 32 alike",
                            "attention_norm",
                            "q_proj",
                            "k_proj",
                            "v_proj",
                            "kv_write",
                            "o_proj",
                            "a2f",
                            "f2a",
                            "ffn",
                            "head",
                            "sampling",
                            "attention-0 -> ffn-0",
                            "ffn-0 -> attention-0",
                            "FLOP/B",
                            "cost model",
                            "77.88 %",
                            "drawn",
                            "each of which takes 4 of"}) {
    EXPECT_THAT(text, HasSubstr(words));
  }
  EXPECT_THAT(text, Not(HasSubstr("layer 9, opened")));
  EXPECT_THAT(ExplainText(report, 9), HasSubstr("layer 9, opened"));
  for (const absl::string_view line : absl::StrSplit(ExplainText(HostileReport(), 9), '\n')) {
    const auto columns =
        std::count_if(line.begin(), line.end(), [](char c) { return (c & 0xC0) != 0x80; });
    EXPECT_LE(static_cast<size_t>(columns), kTerminalColumns) << line;
  }
}

TEST(ExplainText, NothingOfTheRequestControlsTheTerminal) {
  for (const char c : ExplainText(HostileReport(), 0))
    EXPECT_TRUE(c == '\n' || (static_cast<unsigned char>(c) >= 0x20 && c != 0x7f)) << int{c};
  EXPECT_THAT(ExplainText(HostileReport(), 0), Not(HasSubstr("\u202e")));
  EXPECT_THAT(ExplainText(HostileReport(), 0), HasSubstr("\\x1b[2J"));
}

TEST(ExplainJson, HoldsEveryOperationWithItsRunningTotal) {
  const ExplainReport report = HostileReport();
  const json::value parsed = json::parse(json::serialize(ExplainJson(report)));
  EXPECT_EQ(parsed.at("prompt").as_string(), kHostile);
  EXPECT_EQ(parsed.at("step").at("number"), 7);
  EXPECT_EQ(parsed.at("parts").as_array().size(), 2u + 32 * 5);
  double bytes = 0, flops = 0, measured = 0;
  for (const json::value& part : parsed.at("parts").as_array()) {
    measured += part.at("measured_seconds").to_number<double>();
    for (const json::value& op : part.at("ops").as_array()) {
      for (const char* kind : {"weight_bytes", "kv_bytes", "read_bytes", "write_bytes"})
        bytes += op.at(kind).to_number<double>();
      flops += op.at("flops").to_number<double>();
      EXPECT_NEAR(op.at("total").at("memory_bytes").to_number<double>(), bytes, 1e-6 * bytes);
      EXPECT_NEAR(op.at("total").at("flops").to_number<double>(), flops, 1e-6 * flops + 1);
    }
    EXPECT_NEAR(
        part.at("ops").as_array().back().at("total").at("measured_seconds").to_number<double>(),
        measured, 1e-12);
  }
  EXPECT_EQ(parsed.at("groups").at(0).at("layers").as_array().size(), 32u);
  EXPECT_NEAR(parsed.at("candidates").at(0).at("probability").to_number<double>(), 0.7788, 1e-4);
}

TEST(ExplainJson, WhatIsNotKnownIsNull) {
  const ExplainReport report = *MakeExplainReport(ColocatedInput(), model::Shipped(), "");
  const json::object parsed = ExplainJson(report);
  EXPECT_TRUE(parsed.at("parts").at(0).at("ops").at(0).at("model_seconds").is_null());
  EXPECT_TRUE(parsed.at("parts").at(0).at("layer").is_null());
}

// The page's structure, by its markup alone: script elements end where they should, and the data
// between them is the report.
TEST(ExplainHtml, ARequestsTextIsNoMarkup) {
  const ExplainReport report = HostileReport();
  const std::string page = ExplainHtml(report);
  const auto count = [&](const std::string& what) {
    size_t found = 0;
    for (size_t at = page.find(what); at != std::string::npos; at = page.find(what, at + 1))
      found++;
    return found;
  };
  EXPECT_EQ(count("<script"), 2u);
  EXPECT_EQ(count("</script>"), 2u);
  EXPECT_EQ(count("<!--"), 0u);
  EXPECT_EQ(count("alert(1)"), 4u) << "prompt, topology, token, candidate";
  const std::string open = "<script id=\"report\" type=\"application/json\">";
  const size_t begin = page.find(open) + open.size();
  const std::string data = page.substr(begin, page.find("</script>", begin) - begin);
  EXPECT_EQ(data.find('<'), std::string::npos);
  EXPECT_EQ(json::parse(data), json::parse(json::serialize(ExplainJson(report))));
}

TEST(ExplainHtml, NeedsNothingElse) {
  const std::string page = ExplainHtml(HostileReport());
  for (const char* outside :
       {"src=", "href=", "http:", "https:", "@import", "url(", "fetch(", "innerHTML", "outerHTML",
        "insertAdjacent", "document.write", "eval("}) {
    EXPECT_THAT(page, Not(HasSubstr(outside)));
  }
  EXPECT_THAT(page, HasSubstr("default-src 'none'"));
}

}  // namespace
}  // namespace tandem::ctl
