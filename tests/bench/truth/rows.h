#pragma once

// Rows of measured serving, as ../shared/calibration/inferencex_silicon_e2e.csv.gz has them: what
// was served, on what, and the TTFT and TPOT that came out.

#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "scheduler/model/dtype.h"

namespace tandem::truth {

struct Row {
  uint64_t line = 0;  // in the file, the header's is 1
  std::string id;
  std::string engine;     // "vllm", as the catalog names it
  std::string version;    // of the engine; may be empty
  std::string model;      // as published: "deepseek-ai/DeepSeek-R1"
  std::string system;     // "h100_sxm"
  std::string precision;  // "fp8"; empty: bf16
  std::string mode;       // "agg" or "disagg"
  uint64_t prompt_tokens = 0, output_tokens = 0;
  uint64_t concurrency = 0;
  uint64_t tp = 0, pp = 0, attention_dp = 0, moe_ep = 0;  // 0: not stated
  bool inferencex = false;  // measured by InferenceX's client; else by aiconfigurator's
  double ttft_ms = 0, tpot_ms = 0;

  // What was measured: the row without figures, id, date and version of the engine, for one
  // measurement stands in several files, under names of one version. Equal keys are one
  // configuration.
  std::string Configuration() const;
};

// Plain or gzip. kNotFound: no such file; kInvalidArgument names file, line and column: a column
// that is missing, a number that is none or out of range.
absl::StatusOr<std::vector<Row>> ReadRows(const std::string& path);

}  // namespace tandem::truth
