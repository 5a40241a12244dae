// Goal: the catalog's coefficients in the cost model's formulas give the figures that were
// published. Method: each row of facts/published.md that names device, model, dtype and batch is
// predicted; both numbers are printed. Error bounds say where they come from.

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <vector>

#include "scheduler/cost/colocated.h"
#include "scheduler/cost/cost_table.h"
#include "services/runtime/catalog_files.h"

namespace tandem::cost {
namespace {

using model::Dtype;

const model::Catalog& Shipped() {
  static const model::Catalog catalog = [] {
    auto read =
        LoadCatalog({absl::StrCat(std::getenv("TANDEM_SOURCE_DIR"), "/scheduler/model/catalog")});
    EXPECT_TRUE(read.ok()) << read.status();
    return read.value_or(model::Catalog());
  }();
  return catalog;
}

CostTable TableOf(const char* device, const char* shape, Dtype weights,
                  const char* engine_name = nullptr) {
  const model::Device on = *Shipped().FindDevice(device);
  CostOptions options;
  options.precision.weights = weights;
  if (engine_name != nullptr) {
    const model::Engine engine = *Shipped().FindEngine(engine_name);
    options.precision = PrecisionOf(engine, weights);
    options.engine = ConstantsOf(engine, "", on.chip.name, weights, shape);
  }
  auto table = CostTable::Create(on, *Shipped().FindModel(shape), options);
  EXPECT_TRUE(table.ok()) << table.status();
  return *table;
}

// Prints one row and gives predicted over published, less one.
double Compare(const char* id, const char* what, double predicted, double published) {
  const double error = predicted / published - 1;
  std::printf("%-4s %-58s predicted %9.2f  published %9.2f  %+6.1f %%\n", id, what, predicted,
              published, 100 * error);
  return error;
}

struct SramRow {
  const char *id, *device, *shape;
  Dtype weights;
  double tokens_per_s;  // of one user, batch 1
  double error_max;
};

// Source: facts/published.md B6. Each t0 was solved from one row, marked "fitted" in the catalog: 1
// % for it. The others are held out: Groq's 70B of 2024-09 has another model and tokenizer than
// that of 2024-02 and 20 % fewer tokens a second at the same shape, which nothing in the shape
// explains.
TEST(Published, SramSystemsTokensPerSecond) {
  const SramRow rows[] = {
      {"P71", "groq-lpu-v1-x576", "llama-2-70b", Dtype::kInt8, 300, 0.01},
      {"P74", "groq-lpu-v1-x576", "llama-3-8b", Dtype::kInt8, 751, 0.05},
      {"P74", "groq-lpu-v1-x576", "llama-3-70b", Dtype::kInt8, 250, 0.25},
      {"P72", "groq-lpu-v1-x576", "mixtral-8x7b", Dtype::kInt8, 480, 0.02},
      {"P76", "cs-3", "llama-3-8b", Dtype::kBf16, 1800, 0.01},
      {"P77", "cs-3-x4", "llama-3-70b", Dtype::kBf16, 450, 0.01},
  };
  for (const SramRow& row : rows) {
    const CostTable table = TableOf(row.device, row.shape, row.weights);
    const Duration step = table.DecodeStep(AttentionRows::Even(table.shape(), 1, 512));
    const double error = Compare(row.id, absl::StrCat(row.shape, " on ", row.device).c_str(),
                                 1 / step.seconds(), row.tokens_per_s);
    EXPECT_LE(std::abs(error), row.error_max) << row.id << " " << row.shape;
  }
}

// The roofline that divides weights by aggregate bandwidth is what facts/README.md warns of.
TEST(Published, AggregateBandwidthAloneWouldBeWrongByOrdersOfMagnitude) {
  const CostTable table = TableOf("cs-3", "llama-3-8b", Dtype::kBf16);
  const double roofline_s = static_cast<double>(table.shape().parameters()) * 2 / 21e15;
  EXPECT_GT(table.DecodeStep(AttentionRows::Even(table.shape(), 1, 512)).seconds(),
            500 * roofline_s);
}

struct GpuRow {
  const char *id, *device, *shape;
  Dtype weights;
  const char* engine;
  int64_t concurrency, prompt, output;
  double tpot_ms;
};

// TPOT under a closed loop of so many clients, as facts/cost-fit.md has it: half of the output
// stands in the KV, and each prompt that arrives holds the others up by a share of its prefill.
double TpotMs(const GpuRow& row) {
  const CostTable table = TableOf(row.device, row.shape, row.weights, row.engine);
  const RequestShape request = {static_cast<uint64_t>(row.prompt),
                                static_cast<uint64_t>(row.output)};
  return 1e3 * TimePerOutputToken(table, static_cast<uint64_t>(row.concurrency), request).seconds();
}

// Source: facts/published.md B2. The fit behind the catalog's figures has a median error of 5 % on
// such rows, and 11 % at the quarter that it predicts worst (tests/bench/RESULTS.md). Single rows
// carry switches that no column records: DeepSeek's were drafted (MTP) or not, which is a factor of
// two, and the version that would tell is not in the table.
TEST(Published, GpuServersTimePerToken) {
  const GpuRow rows[] = {
      {"P15", "h100-x2", "llama-3-70b", Dtype::kFp8, "vllm", 4, 1024, 1024, 17.41},
      {"P17", "h100-x4", "llama-3-70b", Dtype::kFp8, "vllm", 16, 1024, 1024, 13.19},
      {"P18", "h100-x8", "llama-3-70b", Dtype::kFp8, "vllm", 4, 1024, 1024, 9.11},
      {"P30", "h100-x4", "llama-3-70b", Dtype::kFp8, "vllm", 8, 8192, 1024, 15.77},
      {"P20", "h200-sxm", "llama-3-70b", Dtype::kFp8, "tensorrt-llm", 4, 1024, 1024, 20.11},
      {"P22", "h200-x8", "llama-3-70b", Dtype::kFp8, "tensorrt-llm", 4, 1024, 1024, 6.26},
      {"P24", "b200-sxm", "llama-3-70b", Dtype::kFp8, "tensorrt-llm", 4, 1024, 1024, 14.59},
      {"P26", "b200-x8", "llama-3-70b", Dtype::kFp8, "tensorrt-llm", 128, 1024, 1024, 13.65},
      {"P28", "b200-x8", "llama-3-70b", Dtype::kNvfp4, "tensorrt-llm", 4, 1024, 1024, 5.87},
      {"P32", "b200-x4", "llama-3-70b", Dtype::kFp8, "tensorrt-llm", 8, 8192, 1024, 8.52},
      {"P34", "h100-x2", "gpt-oss-120b", Dtype::kMxfp4, "vllm", 4, 1024, 1024, 5.03},
      {"P36", "b200-sxm", "gpt-oss-120b", Dtype::kMxfp4, "vllm", 4, 1024, 1024, 3.49},
      {"P38", "h200-x8", "deepseek-v3", Dtype::kFp8, "tensorrt-llm", 8, 1024, 1024, 11.37},
      {"P40", "b200-x8", "deepseek-v3", Dtype::kFp8, "sglang", 8, 1024, 1024, 8.81},
      {"P42", "b200-x4", "deepseek-v3", Dtype::kNvfp4, "tensorrt-llm", 64, 1024, 1024, 22.29},
  };
  std::vector<double> errors;
  for (const GpuRow& row : rows) {
    const std::string what =
        absl::StrCat(row.shape, " on ", row.device, ", ", row.concurrency, " clients");
    errors.push_back(std::abs(Compare(row.id, what.c_str(), TpotMs(row), row.tpot_ms)));
    EXPECT_LE(errors.back(), row.shape == absl::string_view("deepseek-v3") ? 0.65 : 0.25) << row.id;
  }
  std::sort(errors.begin(), errors.end());
  EXPECT_LE(errors[errors.size() / 2], 0.12) << "median of all rows";
}

}  // namespace
}  // namespace tandem::cost
