// Goal: rows that are not what they should be are refused by file, line and column, and rows that
// cannot be predicted are counted by name. Method: small files, the shipped catalog.

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_replace.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <fstream>
#include <sstream>

#include "tests/bench/truth/report.h"
#include "tests/bench/truth/rows.h"
#include "tests/bench/truth/serve.h"
#include "tests/unit/scheduler/model/shipped_catalog.h"

namespace tandem::truth {
namespace {

using model::Shipped;

constexpr char kHeader[] =
    "id,silicon_data_source,backend,backend_version,model_path,system,precision,mode,isl,osl,"
    "batch_size,tp_size,pp_size,attention_dp_size,moe_ep_size,silicon_ttft_ms,silicon_tpot_ms\n";
constexpr char kRow[] =
    "a,\"dump; silicon_concurrency=4; x,y\",vllm,0.19.0,meta-llama/Llama-3.1-70B,h100_sxm,fp8,agg,"
    "1024,1024,4,8,1,1,1,70.4,9.11\n";

class Truth : public ::testing::Test {
 protected:
  std::string Write(const std::string& text) {
    const std::string path = absl::StrCat(::testing::TempDir(), "/rows.csv");
    std::ofstream(path) << text;
    return path;
  }
  absl::Status Refusal(const std::string& text) { return ReadRows(Write(text)).status(); }
  absl::StatusOr<std::string> Tables(const std::string& text) {
    Predictor predictor(Shipped());
    return ErrorTables(*ReadRows(Write(text)), predictor);
  }
};

std::string With(absl::string_view from, absl::string_view to) {
  return absl::StrCat(kHeader, absl::StrReplaceAll(kRow, {{from, to}}));
}

TEST_F(Truth, ReadsPlainAndGzippedRows) {
  const auto rows = ReadRows(Write(absl::StrCat(kHeader, kRow, "\n")));
  ASSERT_TRUE(rows.ok()) << rows.status();
  ASSERT_EQ(rows->size(), 1);
  const Row& row = rows->front();
  EXPECT_EQ(row.line, 2);
  EXPECT_EQ(row.concurrency, 4);
  EXPECT_EQ(row.tp, 8);
  EXPECT_TRUE(row.inferencex);
  EXPECT_DOUBLE_EQ(row.ttft_ms, 70.4);
  const std::string path = absl::StrCat(::testing::TempDir(), "/rows.csv.gz");
  gzFile file = gzopen(path.c_str(), "wb");
  gzputs(file, absl::StrCat(kHeader, kRow).c_str());
  gzclose(file);
  EXPECT_EQ(ReadRows(path)->front().Configuration(), row.Configuration());
}

TEST_F(Truth, RefusesByFileLineAndColumn) {
  const auto refused = [&](const std::string& text, absl::string_view words) {
    const absl::Status status = Refusal(text);
    EXPECT_TRUE(absl::StrContains(status.message(), words)) << status;
  };
  refused(absl::StrReplaceAll(kHeader, {{"isl,", ""}}), "rows.csv:1: column 'isl' is missing");
  refused(With("9.11", "fast"), "rows.csv:2: silicon_tpot_ms: 'fast' is no time");
  refused(With("9.11", "nan"), "rows.csv:2: silicon_tpot_ms");
  refused(With("70.4", "-1"), "rows.csv:2: silicon_ttft_ms");
  refused(With("1024,1024", "1024,many"), "rows.csv:2: osl: 'many' is no count");
  refused(With("concurrency=4", "concurrency=x"), "rows.csv:2: silicon_data_source");
  refused(With(",agg,", ",other,"), "rows.csv:2: mode");
  refused(With(",fp8", ""), "rows.csv:2: 16 fields, the header has 17");
  refused(kHeader, "holds no row");
  EXPECT_EQ(ReadRows("/nowhere.csv").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(Truth, PredictsWhatItCanAndCountsTheRestByName) {
  const auto tables = Tables(absl::StrCat(
      kHeader, kRow, absl::StrReplaceAll(kRow, {{"meta-llama/Llama-3.1-70B", "acme/Giant"}}),
      absl::StrReplaceAll(kRow, {{"h100_sxm", "abacus"}}),
      absl::StrReplaceAll(kRow, {{",agg,", ",disagg,"}}),
      absl::StrReplaceAll(kRow, {{",4,8,1,1,1,", ",4,1,1,1,1,"}})));
  ASSERT_TRUE(tables.ok()) << tables.status();
  EXPECT_TRUE(absl::StrContains(*tables, "5 rows; not predicted:")) << *tables;
  for (const char* why :
       {"1 (model_path 'acme/Giant' is unknown)", "1 (system 'abacus' is unknown)",
        "1 (disaggregated)", "1 (does not fit: llama-3-70b on h100-sxm)", "| all | 1 |",
        "| TP 8 | 1 |"}) {
    EXPECT_TRUE(absl::StrContains(*tables, why)) << why << "\n" << *tables;
  }
  EXPECT_FALSE(Tables(With("h100_sxm", "abacus")).ok());
}

TEST_F(Truth, AFitRefusesWhatItDoesNotKnow) {
  const auto status = [&](const std::string& text) {
    Predictor predictor(Shipped());
    std::istringstream in;
    return Serve("rows.csv", *ReadRows(Write(text)), predictor, in);
  };
  EXPECT_TRUE(status(absl::StrCat(kHeader, kRow)).ok());
  EXPECT_TRUE(absl::StrContains(status(With("meta-llama/Llama-3.1-70B", "acme/Giant")).message(),
                                "rows.csv:2: model_path 'acme/Giant' is unknown"));
  EXPECT_TRUE(absl::StrContains(status(With(",fp8,", ",fp7,")).message(),
                                "rows.csv:2: precision 'fp7' is unknown"));
}

TEST_F(Truth, ASetFigureChangesPredictionsAndNothingElseIsAFigure) {
  const Row row = ReadRows(Write(absl::StrCat(kHeader, kRow)))->front();
  const Subject subject = *SubjectOf(row);
  Predictor predictor(Shipped());
  const double before = predictor.Predict(row, subject)->tpot_ms;
  ASSERT_TRUE(predictor.Set("chip", "h100-sxm", "fp8.layer_seconds", 1e-3).ok());
  EXPECT_GT(predictor.Predict(row, subject)->tpot_ms, 2 * before);
  ASSERT_TRUE(predictor.Set("engine", "vllm", "factors.h100-sxm/fp8.fixed", 0.01).ok());
  EXPECT_LT(predictor.Predict(row, subject)->tpot_ms, 2 * before);
  EXPECT_FALSE(predictor.Set("chip", "h100-sxm", "fp8.speed", 1).ok());
  EXPECT_FALSE(predictor.Set("engine", "vllm", "factors.h100-sxm/fp8.speed", 1).ok());
  EXPECT_FALSE(predictor.Set("engine", "orca", "step_seconds", 1).ok());
}

}  // namespace
}  // namespace tandem::truth
