#pragma once

// How well each stage of a model fits a device: time, what bounds it, what memory it takes, what a
// token costs. verdict.h says what to think of it.
//
// Each stage is looked at alone, as on a pool of its own, while it is kept busy: what a split
// saves or costs in waits is the ledger's and the planner's to say.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "scheduler/cost/cost_table.h"
#include "scheduler/model/figures.h"
#include "scheduler/view/worker.h"

namespace tandem::cost {

inline constexpr uint64_t kMaxFitBatch = 65536;

struct FitLoad {
  uint64_t batch = 64;             // sequences that decode together
  uint64_t context_tokens = 8192;  // of each
  uint64_t prompt_tokens = 8192;   // of one prompt; prompts are computed one after the other
};
// kInvalidArgument: a batch outside [1, kMaxFitBatch]; tokens outside [1, context of the model].
absl::Status CheckLoad(const model::ModelShape& shape, const FitLoad& load);

// What takes most of a stage's time.
enum class Bound { kMemory, kCompute, kFixed, kAllReduce, kLink };
absl::string_view BoundName(Bound bound);  // "memory", "fixed time"

// Rows that must share a weight for computing to take as long as reading it:
// F·µ / (2·BW·η / bytes a weight). Source: facts/chips.md section 3, which has µ = η = 1.
struct Ridge {
  double reached = 0;  // with the efficiencies of decode steps
  double peak = 0;     // of the data sheet
};
// None: no figures for the dtype, or no peak.
std::optional<Ridge> RidgeOf(const model::Chip& chip, model::Dtype weights);

enum class Grade { kWeak, kMixed, kStrong, kBest };
absl::string_view GradeName(Grade grade);

struct Verdict {
  Grade grade = Grade::kMixed;
  std::string rule;  // the rule that gave it, with its numbers
};

struct StageFit {
  Stage stage = Stage::kPrefill;
  // Memory. Bytes of the stage's weights, and of K and V of the batch (prefill: of one prompt), in
  // as many copies as the device needs.
  double weight_bytes = 0;
  double kv_bytes = 0;
  uint32_t kv_copies = 1;
  double device_bytes = 0;           // that one device has for both
  uint64_t devices_for_weights = 1;  // at least, ...
  uint64_t devices = 1;              // ... and for both
  // Time of one step (prefill: of one prompt), every layer's call after the other. The batch's KV
  // is spread over `devices`, so attention has that part of its rows in each call; an FFN call has
  // them all, whichever device holds the layer.
  uint64_t rows = 0;
  double rows_per_weight = 0;  // that a weight read serves: fewer where rows spread over experts
  CallParts parts;             // sums of the calls'
  Duration time;               // of the calls
  Duration link_time;          // that the rows, or the prompt's K and V, hold the device's link for
  Bound bound = Bound::kMemory;
  // Of one device, kept busy: rows over the longer of the two times.
  double tokens_per_s = 0;
  std::optional<double> dollars_per_mtok;  // none: no price
  Verdict verdict;

  // Of the time, that `part` (a sum of `parts`) takes.
  double Share(double part) const { return part / time.seconds(); }
  double all_reduce() const { return parts.all_reduce_latency + parts.all_reduce_bytes; }
};

struct DeviceFit {
  model::Device device;
  model::Precision precision;
  Ridge ridge;
  std::array<StageFit, 3> stages;  // in the order of Stage
};

// Without verdicts. kInvalidArgument: as CostTable::Create and CheckLoad; a device whose memory is
// all workspace.
absl::StatusOr<DeviceFit> FitDevice(const model::Device& device, const model::ModelShape& shape,
                                    const model::Precision& precision, const FitLoad& load);

// 8-bit weights where the chip has them (fp8, else int8), else bf16, else the first that it has;
// only with a known peak. None: no peak is known.
std::optional<model::Dtype> UsualWeights(const model::Chip& chip);

// Every figure of the catalog that `fit` stands on.
std::vector<model::NamedFigure> FiguresBehind(const DeviceFit& fit, const model::ModelShape& shape);

}  // namespace tandem::cost
