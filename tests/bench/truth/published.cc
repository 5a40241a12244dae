#include "tests/bench/truth/published.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <algorithm>

#include "scheduler/base/status.h"
#include "scheduler/cost/colocated.h"
#include "scheduler/planner/baseline.h"
#include "scheduler/planner/closed_loop.h"

namespace tandem::truth {
namespace {

using model::Dtype;

// A server under load: TTFT and TPOT. `rounds` requests of each client, all of one length.
struct ServerRow {
  const char *id, *device, *shape;
  Dtype weights;
  const char* engine;
  uint64_t clients, prompt, output, rounds;
  double ttft_ms, tpot_ms;
};
// P01 to P10 are batches that start at once, in 16 bits, on an engine of 2023 that nobody fitted:
// "none" adds no time of its own.
constexpr ServerRow kServers[] = {
    {"P01", "a100-x8", "llama-2-70b", Dtype::kBf16, "none", 1, 512, 128, 1, 94.3, 44.9},
    {"P03", "a100-x8", "llama-2-70b", Dtype::kBf16, "none", 1, 8192, 128, 1, 1549.8, 46.5},
    {"P05", "a100-x8", "llama-2-70b", Dtype::kBf16, "none", 64, 512, 128, 1, 7554.0, 71.6},
    {"P06", "h100-x8", "llama-2-70b", Dtype::kBf16, "none", 1, 512, 128, 1, 53.4, 29.8},
    {"P08", "h100-x8", "llama-2-70b", Dtype::kBf16, "none", 1, 8192, 128, 1, 844.9, 31.4},
    {"P10", "h100-x8", "llama-2-70b", Dtype::kBf16, "none", 64, 512, 128, 1, 2936.3, 50.2},
    {"P15", "h100-x2", "llama-3-70b", Dtype::kFp8, "vllm", 4, 1024, 1024, 10, 121.3, 17.41},
    {"P17", "h100-x4", "llama-3-70b", Dtype::kFp8, "vllm", 16, 1024, 1024, 10, 121.4, 13.19},
    {"P18", "h100-x8", "llama-3-70b", Dtype::kFp8, "vllm", 4, 1024, 1024, 10, 70.4, 9.11},
    {"P20", "h200-sxm", "llama-3-70b", Dtype::kFp8, "tensorrt-llm", 4, 1024, 1024, 10, 562.2,
     20.11},
    {"P22", "h200-x8", "llama-3-70b", Dtype::kFp8, "tensorrt-llm", 4, 1024, 1024, 10, 68.7, 6.26},
    {"P24", "b200-sxm", "llama-3-70b", Dtype::kFp8, "tensorrt-llm", 4, 1024, 1024, 10, 383.1,
     14.59},
    {"P26", "b200-x8", "llama-3-70b", Dtype::kFp8, "tensorrt-llm", 128, 1024, 1024, 10, 233.2,
     13.65},
    {"P28", "b200-x8", "llama-3-70b", Dtype::kNvfp4, "tensorrt-llm", 4, 1024, 1024, 10, 66.6, 5.87},
    {"P30", "h100-x4", "llama-3-70b", Dtype::kFp8, "vllm", 8, 8192, 1024, 10, 582.9, 15.77},
    {"P32", "b200-x4", "llama-3-70b", Dtype::kFp8, "tensorrt-llm", 8, 8192, 1024, 10, 348.5, 8.52},
    {"P34", "h100-x2", "gpt-oss-120b", Dtype::kMxfp4, "vllm", 4, 1024, 1024, 10, 59.3, 5.03},
    {"P36", "b200-sxm", "gpt-oss-120b", Dtype::kMxfp4, "vllm", 4, 1024, 1024, 10, 46.3, 3.49},
    {"P38", "h200-x8", "deepseek-v3", Dtype::kFp8, "tensorrt-llm", 8, 1024, 1024, 10, 455.2, 11.37},
    {"P40", "b200-x8", "deepseek-v3", Dtype::kFp8, "sglang", 8, 1024, 1024, 10, 364.0, 8.81},
    {"P42", "b200-x4", "deepseek-v3", Dtype::kNvfp4, "tensorrt-llm", 64, 1024, 1024, 10, 459.1,
     22.29},
};

// Output tokens a second of all users together, as many as fit: nobody states how many ran.
struct OfflineRow {
  const char *id, *device, *shape;
  Dtype weights;
  uint64_t prompt, output;
  double tokens_per_s;
};
constexpr OfflineRow kOffline[] = {
    {"P43", "h100-x2", "llama-3-70b", Dtype::kFp8, 1000, 1000, 4205},
    {"P43", "h200-sxm", "llama-3-70b", Dtype::kFp8, 1000, 1000, 2909},
    {"P43", "b200-sxm", "llama-3-70b", Dtype::kNvfp4, 1000, 1000, 7007},
    {"P43", "gb200", "llama-3-70b", Dtype::kNvfp4, 1000, 1000, 7326},
    {"P46", "h100-x8", "llama-3-405b", Dtype::kFp8, 1000, 1000, 2919},
    {"P46", "h200-x8", "llama-3-405b", Dtype::kFp8, 1000, 1000, 3330},
    {"P46", "b200-x4", "llama-3-405b", Dtype::kNvfp4, 1000, 1000, 5209},
    {"P46", "gb200-x4", "llama-3-405b", Dtype::kNvfp4, 1000, 1000, 5389},
    {"P47", "h100-sxm", "llama-3-8b", Dtype::kFp8, 1000, 1000, 15220},
    {"P47", "h200-sxm", "llama-3-8b", Dtype::kFp8, 1000, 1000, 17744},
    {"P49", "b200-sxm", "qwen3-30b-a3b", Dtype::kNvfp4, 1000, 1000, 25828},
    {"P49", "gb200", "qwen3-30b-a3b", Dtype::kNvfp4, 1000, 1000, 17481},
};
constexpr uint64_t kMostSequences = 2048;  // TensorRT-LLM's own limit of a batch

// One user's output tokens a second.
struct UserRow {
  const char *id, *device, *shape;
  Dtype weights;
  double tokens_per_s;
};
constexpr UserRow kUsers[] = {
    {"P71", "groq-lpu-v1-x576", "llama-2-70b", Dtype::kInt8, 300},
    {"P72", "groq-lpu-v1-x576", "mixtral-8x7b", Dtype::kInt8, 480},
    {"P74", "groq-lpu-v1-x576", "llama-3-70b", Dtype::kInt8, 250},
    {"P74", "groq-lpu-v1-x576", "llama-3-8b", Dtype::kInt8, 751},
    {"P76", "cs-3", "llama-3-8b", Dtype::kBf16, 1800},
    {"P77", "cs-3-x4", "llama-3-70b", Dtype::kBf16, 450},
};
constexpr uint64_t kUserContext = 512;

constexpr char kNotPredicted[] =
    "Not predicted: P11, P13, P14 (BLOOM-176B: its shape is not in facts/models.md); P50, P53, P54 "
    "(MLPerf: the set's prompt lengths\nare not stated); P55 to P58, P62, P63, P66 (prefill and "
    "decode apart over 12 to 128 GPUs, wide expert parallelism); P59 (Step-3: its expert\nwidth is "
    "not published); P67 (one KV transfer: the link's figures are catalog data, nothing is "
    "predicted); P68 (the AFD table); P70 (a budget);\nP75 (drafted tokens); P79 (no 4-bit figures "
    "of CS-3 or Groq); P81 to P83 (SN40L and Corsair: bandwidth or layer time not found); P84 "
    "(Gemma-4:\nshape not published, drafting not stated); P85 (a ratio of an undisclosed model).";

absl::StatusOr<cost::CostTable> TableOf(const model::Catalog& catalog, const char* device_name,
                                        const char* shape_name, Dtype weights,
                                        const char* engine_name) {
  ASSIGN_OR_RETURN(const model::Device device, catalog.FindDevice(device_name));
  ASSIGN_OR_RETURN(const model::ModelShape shape, catalog.FindModel(shape_name));
  ASSIGN_OR_RETURN(const model::Engine engine, planner::FindEngine(catalog, engine_name));
  cost::CostOptions options;
  options.precision = cost::PrecisionOf(engine, weights);
  options.engine = cost::ConstantsOf(engine, "", device.chip.name, weights, shape.name);
  return cost::CostTable::Create(device, shape, options);
}

void AddRow(std::string& text, const char* id, const std::string& what, const char* unit,
            double predicted, double published) {
  absl::StrAppendFormat(&text, "| %s | %s | %s | %.4g | %.4g | %+.0f %% |\n", id, what, unit,
                        published, predicted, 100 * (predicted / published - 1));
}

absl::Status AddServers(const model::Catalog& catalog, std::string& text) {
  for (const ServerRow& row : kServers) {
    ASSIGN_OR_RETURN(const cost::CostTable table,
                     TableOf(catalog, row.device, row.shape, row.weights, row.engine));
    planner::ClosedLoopLoad load;
    load.clients = row.clients;
    load.requests = row.clients * row.rounds;
    load.request = {row.prompt, row.output};
    load.shortest = row.rounds == 1 ? 1 : 0.8;
    ASSIGN_OR_RETURN(const auto report, planner::SimulateClosedLoop(table, load));
    const std::string what =
        absl::StrCat(row.shape, " ", model::DtypeName(row.weights), ", ", row.device, ", ",
                     row.engine, ", ", row.clients, " x ", row.prompt, "/", row.output);
    AddRow(text, row.id, what, "TTFT ms", 1e3 * report.ttft_mean.seconds(), row.ttft_ms);
    AddRow(text, row.id, what, "TPOT ms", 1e3 * report.tpot_mean.seconds(), row.tpot_ms);
  }
  return absl::OkStatus();
}

absl::Status AddOffline(const model::Catalog& catalog, std::string& text) {
  for (const OfflineRow& row : kOffline) {
    ASSIGN_OR_RETURN(const cost::CostTable table,
                     TableOf(catalog, row.device, row.shape, row.weights, "tensorrt-llm"));
    const cost::RequestShape request = {row.prompt, row.output};
    const uint64_t batch = std::min(cost::BatchThatFits(table, request), kMostSequences);
    const double rate =
        static_cast<double>(batch) / cost::TimePerOutputToken(table, batch, request).seconds();
    AddRow(text, row.id,
           absl::StrCat(row.shape, " ", model::DtypeName(row.weights), ", ", row.device,
                        ", offline, ", batch, " fit"),
           "tok/s", rate, row.tokens_per_s);
  }
  return absl::OkStatus();
}

absl::Status AddUsers(const model::Catalog& catalog, std::string& text) {
  for (const UserRow& row : kUsers) {
    ASSIGN_OR_RETURN(const cost::CostTable table,
                     TableOf(catalog, row.device, row.shape, row.weights, "none"));
    const Duration step =
        table.DecodeStep(cost::AttentionRows::Even(table.shape(), 1, kUserContext));
    AddRow(
        text, row.id,
        absl::StrCat(row.shape, " ", model::DtypeName(row.weights), ", ", row.device, ", one user"),
        "tok/s", 1 / step.seconds(), row.tokens_per_s);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::string> PublishedTable(const model::Catalog& catalog) {
  std::string text =
      "| id | what | figure | published | predicted | error |\n|---|---|---|---|---|---|\n";
  RETURN_IF_ERROR(AddServers(catalog, text));
  RETURN_IF_ERROR(AddOffline(catalog, text));
  RETURN_IF_ERROR(AddUsers(catalog, text));
  return absl::StrCat(text, "\n", kNotPredicted, "\n");
}

}  // namespace tandem::truth
