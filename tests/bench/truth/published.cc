#include "tests/bench/truth/published.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>

#include "scheduler/base/status.h"
#include "scheduler/cost/colocated.h"
#include "scheduler/planner/baseline.h"
#include "tests/bench/truth/predict.h"

namespace tandem::truth {
namespace {

using enum model::Dtype;
using Kind = PublishedLoad::Kind;

// A length that all rows of a section have stands here.
constexpr PublishedLoad Burst(uint64_t clients, uint64_t prompt) {
  return {Kind::kBurst, clients, prompt, 128};
}
constexpr PublishedLoad Loop(uint64_t clients, uint64_t prompt = 1024) {
  return {Kind::kServer, clients, prompt, 1024};
}
constexpr PublishedLoad kOffline = {Kind::kOffline, 0, 1000, 1000};
constexpr PublishedLoad kOneUser = {Kind::kOneUser, 1};
constexpr Figures Rate(double tokens_per_s) { return {0, 0, tokens_per_s}; }

constexpr char kTrtLlm[] = "tensorrt-llm";
constexpr PublishedRow kRows[] = {
    // B1: 16 bits, on an engine of 2023.
    {"P01", "a100-x8", "llama-2-70b", kBf16, "none", "", Burst(1, 512), {94.3, 44.9}},
    {"P03", "a100-x8", "llama-2-70b", kBf16, "none", "", Burst(1, 8192), {1549.8, 46.5}},
    {"P05", "a100-x8", "llama-2-70b", kBf16, "none", "", Burst(64, 512), {7554.0, 71.6}},
    {"P06", "h100-x8", "llama-2-70b", kBf16, "none", "", Burst(1, 512), {53.4, 29.8}},
    {"P08", "h100-x8", "llama-2-70b", kBf16, "none", "", Burst(1, 8192), {844.9, 31.4}},
    {"P10", "h100-x8", "llama-2-70b", kBf16, "none", "", Burst(64, 512), {2936.3, 50.2}},
    // B2. Versions are those of ../shared/calibration/inferencex_silicon_e2e.csv.gz. P36 and P40
    // are rows of it, with these figures; P15, P20, P26, P32 and P42 are too, with none recorded.
    // P38 is not: all rows there of TensorRT-LLM on H200 with expert parallelism 8 are of one
    // version, and at 4 and 16 clients they take 8.58 and 14.19 ms a token. Of the rest nothing
    // is known.
    {"P15", "h100-x2", "llama-3-70b", kFp8, "vllm", "", Loop(4), {121.3, 17.41}},
    {"P17", "h100-x4", "llama-3-70b", kFp8, "vllm", "", Loop(16), {121.4, 13.19}},
    {"P18", "h100-x8", "llama-3-70b", kFp8, "vllm", "", Loop(4), {70.4, 9.11}},
    {"P20", "h200-sxm", "llama-3-70b", kFp8, kTrtLlm, "", Loop(4), {562.2, 20.11}},
    {"P22", "h200-x8", "llama-3-70b", kFp8, kTrtLlm, "", Loop(4), {68.7, 6.26}},
    {"P24", "b200-sxm", "llama-3-70b", kFp8, kTrtLlm, "", Loop(4), {383.1, 14.59}},
    {"P26", "b200-x8", "llama-3-70b", kFp8, kTrtLlm, "", Loop(128), {233.2, 13.65}},
    {"P28", "b200-x8", "llama-3-70b", kNvfp4, kTrtLlm, "", Loop(4), {66.6, 5.87}},
    {"P30", "h100-x4", "llama-3-70b", kFp8, "vllm", "", Loop(8, 8192), {582.9, 15.77}},
    {"P32", "b200-x4", "llama-3-70b", kFp8, kTrtLlm, "", Loop(8, 8192), {348.5, 8.52}},
    {"P34", "h100-x2", "gpt-oss-120b", kMxfp4, "vllm", "", Loop(4), {59.3, 5.03}},
    {"P36", "b200-sxm", "gpt-oss-120b", kMxfp4, "vllm", "0.15.1", Loop(4), {46.3, 3.49}},
    {"P38", "h200-x8", "deepseek-v3", kFp8, kTrtLlm, "1.1.0rc2.post2", Loop(8), {455.2, 11.37}},
    {"P40", "b200-x8", "deepseek-v3", kFp8, "sglang", "0.5.9", Loop(8), {364.0, 8.81}},
    {"P42", "b200-x4", "deepseek-v3", kNvfp4, kTrtLlm, "", Loop(64), {459.1, 22.29}},
    // B3.
    {"P43", "h100-x2", "llama-3-70b", kFp8, kTrtLlm, "", kOffline, Rate(4205)},
    {"P43", "h200-sxm", "llama-3-70b", kFp8, kTrtLlm, "", kOffline, Rate(2909)},
    {"P43", "b200-sxm", "llama-3-70b", kNvfp4, kTrtLlm, "", kOffline, Rate(7007)},
    {"P43", "gb200", "llama-3-70b", kNvfp4, kTrtLlm, "", kOffline, Rate(7326)},
    {"P46", "h100-x8", "llama-3-405b", kFp8, kTrtLlm, "", kOffline, Rate(2919)},
    {"P46", "h200-x8", "llama-3-405b", kFp8, kTrtLlm, "", kOffline, Rate(3330)},
    {"P46", "b200-x4", "llama-3-405b", kNvfp4, kTrtLlm, "", kOffline, Rate(5209)},
    {"P46", "gb200-x4", "llama-3-405b", kNvfp4, kTrtLlm, "", kOffline, Rate(5389)},
    {"P47", "h100-sxm", "llama-3-8b", kFp8, kTrtLlm, "", kOffline, Rate(15220)},
    {"P47", "h200-sxm", "llama-3-8b", kFp8, kTrtLlm, "", kOffline, Rate(17744)},
    {"P49", "b200-sxm", "qwen3-30b-a3b", kNvfp4, kTrtLlm, "", kOffline, Rate(25828)},
    {"P49", "gb200", "qwen3-30b-a3b", kNvfp4, kTrtLlm, "", kOffline, Rate(17481)},
    // B6.
    {"P71", "groq-lpu-v1-x576", "llama-2-70b", kInt8, "none", "", kOneUser, Rate(300)},
    {"P72", "groq-lpu-v1-x576", "mixtral-8x7b", kInt8, "none", "", kOneUser, Rate(480)},
    {"P74", "groq-lpu-v1-x576", "llama-3-70b", kInt8, "none", "", kOneUser, Rate(250)},
    {"P74", "groq-lpu-v1-x576", "llama-3-8b", kInt8, "none", "", kOneUser, Rate(751)},
    {"P76", "cs-3", "llama-3-8b", kBf16, "none", "", kOneUser, Rate(1800)},
    {"P77", "cs-3-x4", "llama-3-70b", kBf16, "none", "", kOneUser, Rate(450)},
};

constexpr uint64_t kMostSequences = 2048;  // TensorRT-LLM's own limit of a batch

constexpr char kNotPredicted[] =
    "Not predicted: P11, P13, P14 (BLOOM-176B: its shape is not in facts/models.md); P50, P53, P54 "
    "(MLPerf: the set's prompt lengths\nare not stated); P55 to P58, P62, P63, P66 (prefill and "
    "decode apart over 12 to 128 GPUs, wide expert parallelism); P59 (Step-3: its expert\nwidth is "
    "not published); P67 (one KV transfer: the link's figures are catalog data, nothing is "
    "predicted); P68 (the AFD table); P70 (a budget);\nP75 (drafted tokens); P79 (no 4-bit figures "
    "of CS-3 or Groq); P81 to P83 (SN40L and Corsair: bandwidth or layer time not found); P84 "
    "(Gemma-4:\nshape not published, drafting not stated); P85 (a ratio of an undisclosed model).";

absl::StatusOr<cost::CostTable> TableOf(const model::Catalog& catalog, const PublishedRow& row) {
  ASSIGN_OR_RETURN(const model::Device device, catalog.FindDevice(row.device));
  ASSIGN_OR_RETURN(const model::ModelShape shape, catalog.FindModel(row.shape));
  ASSIGN_OR_RETURN(const model::Engine engine, planner::FindEngine(catalog, row.engine));
  cost::CostOptions options;
  options.precision = cost::PrecisionOf(engine, row.weights);
  options.engine =
      cost::ConstantsOf(engine, row.version, device.chip.name, row.weights, shape.name);
  return cost::CostTable::Create(device, shape, options);
}

// The load in words, behind what was served on what.
std::string Described(const PublishedRow& row, const PublishedPrediction& predicted) {
  std::string text =
      absl::StrCat(row.shape, " ", model::DtypeName(row.weights), ", ", row.device, ", ");
  if (row.load.kind == Kind::kOneUser) return absl::StrCat(text, "one user");
  if (row.load.kind == Kind::kOffline)
    return absl::StrCat(text, "offline, ", predicted.batch, " fit");
  absl::StrAppend(&text, row.engine, *row.version == '\0' ? "" : " ", row.version);
  return absl::StrCat(text, ", ", row.load.clients, " x ", row.load.prompt, "/", row.load.output);
}

}  // namespace

absl::Span<const PublishedRow> PublishedRows() { return kRows; }

absl::StatusOr<PublishedPrediction> Predict(const model::Catalog& catalog,
                                            const PublishedRow& row) {
  ASSIGN_OR_RETURN(const cost::CostTable table, TableOf(catalog, row));
  const cost::RequestShape request = {row.load.prompt, row.load.output};
  PublishedPrediction prediction;
  Figures& figures = prediction.figures;
  if (row.load.kind == Kind::kOneUser) {
    const auto rows = cost::AttentionRows::Even(table.shape(), 1, kOneUserContext);
    figures.tokens_per_s = 1 / table.DecodeStep(rows).seconds();
    return prediction;
  }
  if (row.load.kind == Kind::kOffline) {
    const uint64_t batch = std::min(cost::BatchThatFits(table, request), kMostSequences);
    prediction.batch = batch;
    figures.tokens_per_s =
        static_cast<double>(batch) / cost::TimePerOutputToken(table, batch, request).seconds();
    return prediction;
  }
  const ClientHabits client =
      row.load.kind == Kind::kServer ? kInferenceXClient : ClientHabits{1, 1};
  ASSIGN_OR_RETURN(const Prediction seen, SimulateClient(table, row.load.clients, request, client));
  figures.ttft_ms = seen.ttft_ms;
  figures.tpot_ms = seen.tpot_ms;
  prediction.steady_tpot_ms =
      1e3 * cost::TimePerOutputToken(table, row.load.clients, request).seconds();
  return prediction;
}

absl::StatusOr<std::string> PublishedTable(const model::Catalog& catalog) {
  std::string text =
      "| id | what | figure | published | predicted | error |\n|---|---|---|---|---|---|\n";
  for (const PublishedRow& row : kRows) {
    ASSIGN_OR_RETURN(const PublishedPrediction predicted, Predict(catalog, row));
    const std::string what = Described(row, predicted);
    const auto add = [&](const char* unit, double Figures::*figure) {
      const double was = row.published.*figure, is = predicted.figures.*figure;
      if (was == 0) return;
      absl::StrAppendFormat(&text, "| %s | %s | %s | %.4g | %.4g | %+.0f %% |\n", row.id, what,
                            unit, was, is, 100 * (is / was - 1));
    };
    add("TTFT ms", &Figures::ttft_ms);
    add("TPOT ms", &Figures::tpot_ms);
    add("tok/s", &Figures::tokens_per_s);
  }
  return absl::StrCat(text, "\n", kNotPredicted, "\n");
}

}  // namespace tandem::truth
