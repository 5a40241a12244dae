#include "services/ctl/fit_report.h"

#include <absl/strings/str_split.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "services/ctl/table.h"
#include "tests/unit/scheduler/model/shipped_catalog.h"

namespace tandem::ctl {
namespace {

namespace json = boost::json;
using model::Shipped;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

FitRequest Request(std::vector<std::string> devices = {"h100", "groq3-lpx", "cs-3"}) {
  FitRequest request;
  request.model = "llama-3-70b";
  request.devices = std::move(devices);
  request.load.prompt_tokens = 0;
  return request;
}

FitReport Report(const FitRequest& request) {
  auto report = MakeFitReport(Shipped(), request);
  EXPECT_TRUE(report.ok()) << report.status();
  return *report;
}

std::string Refused(const FitRequest& request) {
  return std::string(MakeFitReport(Shipped(), request).status().message());
}

// Without the numbers after the point that a new fit of the coefficients would change.
TEST(FitReport, VerdictsOfTheIssuesExample) {
  const FitReport report = Report(Request());
  ASSERT_EQ(report.fits.size(), 3u);
  const auto grades = [&](size_t device) {
    std::string text;
    for (const cost::StageFit& fit : report.fits[device].stages)
      absl::StrAppend(&text, text.empty() ? "" : " ", cost::GradeName(fit.verdict.grade));
    return text;
  };
  EXPECT_EQ(grades(0), "strong strong mixed");
  EXPECT_EQ(grades(1), "weak weak mixed");
  EXPECT_EQ(grades(2), "mixed weak mixed");
  EXPECT_EQ(report.fits[1].device.name, "groq3-lpx-rack");
  EXPECT_EQ(report.fits[0].precision.weights, model::Dtype::kFp8);
  EXPECT_EQ(report.fits[2].precision.weights, model::Dtype::kBf16);
  EXPECT_EQ(report.load.prompt_tokens, 8192u);  // as the context
}

TEST(FitReport, BadRequestsAreRefusedByName) {
  FitRequest request = Request({});
  EXPECT_EQ(Refused(request), "no chip to compare");
  request = Request({"h100", "h100-sxm"});
  EXPECT_EQ(Refused(request), "device 'h100-sxm' is named twice");
  request = Request({"h100", "tpu"});
  EXPECT_EQ(Refused(request), "device 'tpu' may be tpu-v5e, tpu-v5p, tpu-v6e");
  request = Request();
  request.model = "lama-3-70b";
  EXPECT_THAT(Refused(request),
              HasSubstr("model 'lama-3-70b' is not in the catalog; nearest: llama-3-70b, "));
  request = Request();
  request.weights = "fp9";
  EXPECT_EQ(Refused(request), "weights: 'fp9' is none of bf16, fp8, int8, int4, nvfp4, mxfp4");
  request.weights = "fp8";
  EXPECT_EQ(Refused(request), "device 'cs-3': no figures for fp8 weights; it has bf16");
  request = Request();
  request.load.batch = 0;
  EXPECT_EQ(Refused(request), "batch: 0 is not in [1, 65536]");
  request = Request();
  request.load.context_tokens = 200'000;
  EXPECT_EQ(Refused(request),
            "context: 200000 is not in [1, 131072], the context of 'llama-3-70b'");
  request = Request();
  request.what_ifs = {"hbm.bandwidth=22"};
  EXPECT_EQ(Refused(request),
            "what-if 'hbm.bandwidth=22': '22' has none of the units B/s, kB/s, MB/s, GB/s, TB/s, "
            "PB/s");
  request.what_ifs = {"b200.price=2"};
  EXPECT_EQ(Refused(request), "what-if 'b200.price=2': changes none of the chips compared");
}

TEST(FitReport, TextSaysWhatItStandsOn) {
  FitRequest request = Request();
  request.what_ifs = {"hbm.bandwidth=22TB/s"};
  const std::string text = FitText(Report(request), /*ops=*/false);
  EXPECT_THAT(text, HasSubstr("what if hbm.bandwidth=22TB/s\n"));
  EXPECT_THAT(text, HasSubstr("h100-sxm (fp8) what-if: bandwidth_bytes_per_s; "));
  EXPECT_THAT(text, HasSubstr("cs-3 (bf16) fitted: layer_seconds; "));
  EXPECT_THAT(text, ContainsRegex("unknown:[ \n]+dollars_per_hour"));
  EXPECT_THAT(text, AllOf(HasSubstr("prefill: one prompt of 8192 tokens\n"),
                          HasSubstr("ffn: a step of 64 rows\n"),
                          HasSubstr("\n    weak: KV of 64 x 8192 tokens (171.8 GB) needs 5 "
                                    "devices, the weights 1\n")));
  EXPECT_THAT(text, Not(HasSubstr("q_proj")));
  EXPECT_THAT(FitText(Report(Request()), /*ops=*/false), Not(HasSubstr("what-if")));
}

TEST(FitReport, TextFitsATerminal) {
  for (const char* name : {"llama-3-70b", "deepseek-v3"}) {
    FitRequest request = Request({"h200-x8", "groq3-lpx", "groq-lpu-v1-x576", "cs-3"});
    request.model = name;
    for (const absl::string_view line : absl::StrSplit(FitText(Report(request), true), '\n'))
      EXPECT_LE(line.size(), kTerminalColumns) << line;
  }
}

TEST(FitReport, OperationsAreOfEachDtypeCompared) {
  const std::string text = FitText(Report(Request()), /*ops=*/true);
  EXPECT_THAT(text, HasSubstr("one call of each op, fp8 weights: a prompt of 8192 tokens"));
  EXPECT_THAT(text, HasSubstr("one call of each op, bf16 weights: a prompt of 8192 tokens"));
  EXPECT_THAT(text, HasSubstr("[64, 8192] x 3 x [8192, 28672]"));
}

TEST(FitReport, JsonHasEverything) {
  const json::value all = json::parse(FitJson(Report(Request())));
  EXPECT_EQ(all.at("model"), "llama-3-70b");
  EXPECT_EQ(all.at("batch").to_number<uint64_t>(), 64u);
  const json::value& rack = all.at("devices").at(1);
  EXPECT_EQ(rack.at("device"), "groq3-lpx-rack");
  EXPECT_TRUE(rack.at("dollars_per_hour").is_null());
  const json::value& attention = rack.at("stages").at("attention");
  EXPECT_EQ(attention.at("grade"), "weak");
  EXPECT_TRUE(attention.at("dollars_per_mtok").is_null());
  EXPECT_EQ(attention.at("kv_copies").to_number<int>(), 32);
  EXPECT_GT(all.at("devices").at(0).at("stages").at("ffn").at("dollars_per_mtok").as_double(), 0);
  EXPECT_GT(rack.at("figures").as_array().size(), 10u);
  EXPECT_EQ(all.at("ops").at("fp8").at("step").at(2).at("name"), "q_proj");
  EXPECT_EQ(all.at("ops").at("bf16").at("prompt").at(0).at("name"), "embedding");
}

}  // namespace
}  // namespace tandem::ctl
