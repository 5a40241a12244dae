// Goal: the catalog's coefficients in the cost model's formulas give the figures that were
// published. Method: each row of published.h whose load is known is predicted; both numbers are
// printed. Error bounds say where they come from.

#include "tests/bench/truth/published.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "tests/unit/scheduler/model/shipped_catalog.h"

namespace tandem::truth {
namespace {

using model::Shipped;
using Kind = PublishedLoad::Kind;

std::vector<PublishedRow> RowsOf(Kind kind) {
  std::vector<PublishedRow> rows;
  for (const PublishedRow& row : PublishedRows()) {
    if (row.load.kind == kind) rows.push_back(row);
  }
  return rows;
}

// Prints one figure of a row and gives the error as a share, without its sign.
double Error(const PublishedRow& row, const char* figure, double predicted, double published) {
  const double error = predicted / published - 1;
  std::printf(
      "%-4s %-48s %-12s predicted %9.2f  published %9.2f  %+6.1f %%\n", row.id,
      absl::StrCat(row.shape, " on ", row.device, ", ", row.load.clients, " clients").c_str(),
      figure, predicted, published, 100 * error);
  return std::abs(error);
}

// Source: facts/published.md B6. Each t0 was solved from one row, marked "fitted" in the catalog: 1
// % for it. The others are held out: Groq's 70B of 2024-09 has another model and tokenizer than
// that of 2024-02 and 20 % fewer tokens a second at the same shape, which nothing in the shape
// explains.
TEST(Published, SramSystemsTokensPerSecond) {
  const std::map<std::pair<std::string, std::string>, double> most = {
      {{"P71", "llama-2-70b"}, 0.01}, {{"P74", "llama-3-8b"}, 0.05},
      {{"P74", "llama-3-70b"}, 0.25}, {{"P72", "mixtral-8x7b"}, 0.02},
      {{"P76", "llama-3-8b"}, 0.01},  {{"P77", "llama-3-70b"}, 0.01},
  };
  const auto rows = RowsOf(Kind::kOneUser);
  EXPECT_EQ(rows.size(), most.size());
  for (const PublishedRow& row : rows) {
    const auto predicted = Predict(Shipped(), row);
    ASSERT_TRUE(predicted.ok()) << row.id << ": " << predicted.status();
    EXPECT_LE(Error(row, "tokens/s", predicted->figures.tokens_per_s, row.published.tokens_per_s),
              most.at({row.id, row.shape}))
        << row.id << " " << row.shape;
  }
}

// The roofline that divides weights by aggregate bandwidth is what facts/README.md warns of.
TEST(Published, AggregateBandwidthAloneWouldBeWrongByOrdersOfMagnitude) {
  const auto rows = RowsOf(Kind::kOneUser);
  const auto cerebras = std::find_if(rows.begin(), rows.end(), [](const PublishedRow& row) {
    return row.device == absl::string_view("cs-3");
  });
  ASSERT_NE(cerebras, rows.end());
  const auto predicted = Predict(Shipped(), *cerebras);
  ASSERT_TRUE(predicted.ok()) << predicted.status();
  const model::ModelShape shape = *Shipped().FindModel(cerebras->shape);
  const double roofline_s = static_cast<double>(shape.parameters()) * 2 / 21e15;
  EXPECT_LT(predicted->figures.tokens_per_s, 1 / (500 * roofline_s));
}

// Source: facts/published.md B2. The fit behind the catalog's figures has a median error of 5 % on
// such rows, and 11 % at the quarter that it predicts worst (tests/bench/RESULTS.md). The bound of
// a single row is what one configuration and version of an engine is apart from itself: P40 is 8.81
// ms, and 10.81 ms in another run (../shared/calibration). An engine's versions are further apart,
// for DeepSeek was drafted (MTP) in some: without a row's version the bound does not hold.
TEST(Published, GpuServersTimePerToken) {
  std::vector<double> simulated, steady;
  for (const PublishedRow& row : RowsOf(Kind::kServer)) {
    const auto predicted = Predict(Shipped(), row);
    ASSERT_TRUE(predicted.ok()) << row.id << ": " << predicted.status();
    const double published = row.published.tpot_ms;
    simulated.push_back(Error(row, "TPOT ms", predicted->figures.tpot_ms, published));
    steady.push_back(Error(row, "steady TPOT", predicted->steady_tpot_ms, published));
    EXPECT_LE(simulated.back(), 0.25) << row.id;
    EXPECT_LE(steady.back(), 0.25) << row.id;
  }
  for (std::vector<double>* errors : {&simulated, &steady}) {
    ASSERT_EQ(errors->size(), 15);
    std::sort(errors->begin(), errors->end());
    EXPECT_LE((*errors)[errors->size() / 2], 0.12) << "median of all rows";
  }
}

}  // namespace
}  // namespace tandem::truth
