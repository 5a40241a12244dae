#include "tests/bench/truth/afd.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include "scheduler/base/status.h"
#include "scheduler/cost/cost_table.h"
#include "scheduler/cost/cycle.h"

namespace tandem::truth {
namespace {

using cost::CostTable;
using model::Figure;

// What the rows do not say and the prediction needs. None was chosen after a look at the result.
constexpr char kAssumptions[] =
    "Atlas A3, an effective chip of this benchmark only: a die has 1.6 TB/s and 280 TFLOPS (Ascend "
    "910B of facts/chips.md), 10 us a\nhand-off and 25 GB/s of link (its 200 Gb/s). One scalar is "
    "both efficiencies, memory's and compute's; no fixed times. DeepSeek-V3's shape in\n8 bits, "
    "attention over the whole context (V3.2's sparse attention is not modelled), 16-bit KV, "
    "experts "
    "in balance. 12 sequences a die: 232.6\ntokens/s at a TPOT of 50 ms. EP64: each die attends to "
    "its own 12, experts are spread over 64, one hand-off each way a layer. AFD: two "
    "micro-batches.";
constexpr uint64_t kSequences = 12;  // of each die that attends
constexpr uint32_t kMicroBatches = 2;

struct AfdRow {
  const char* name;
  uint64_t attention_dies, ffn_dies;  // 0 FFN dies: every die does both
  uint64_t context;
  double measured;  // tokens/s and die
};
// Source: facts/afd.md, section 6. The first is what the scalar is fitted on.
constexpr AfdRow kRows[] = {
    {"EP64 16K", 64, 0, 16384, 232.6},    {"48A16F 16K", 48, 16, 16384, 220.3},
    {"64A16F 16K", 64, 16, 16384, 258.9}, {"EP64 32K", 64, 0, 32768, 168.2},
    {"48A16F 32K", 48, 16, 32768, 151.4}, {"64A16F 32K", 64, 16, 32768, 183.3},
};

model::Device AtlasA3(double efficiency) {
  const auto figure = [](double value) {
    return Figure{value, model::Mark::kAssumed, "of this benchmark"};
  };
  model::Chip chip;
  chip.name = "atlas-a3-die";
  chip.memory_class = "hbm";
  chip.memory_bytes = figure(64e9);
  chip.usable_memory = figure(1);
  chip.workspace_bytes = figure(0);
  chip.bandwidth_bytes_per_s = figure(1.6e12);
  chip.scale_out = {figure(25e9), figure(10e-6)};
  model::DtypeFigures& figures = chip.dtypes[model::Dtype::kFp8];
  figures.peak_flops = figure(280e12);
  figures.bandwidth_efficiency = figures.compute_efficiency = figure(efficiency);
  figures.prefill_compute_efficiency = figure(efficiency);
  figures.exponent = figures.layer_seconds = figures.prefill_layer_seconds = figure(0);
  figures.expert_factor = figure(1);
  return model::SingleChip(chip);
}

// Tokens per second of one die.
double TokensPerSecond(const CostTable& table, const AfdRow& row) {
  const model::ModelShape& shape = table.shape();
  const uint64_t last = shape.layers - 1;  // a layer with experts, as all but three are
  const bool afd = row.ffn_dies > 0;
  const uint64_t rows = afd ? kSequences / kMicroBatches : kSequences;
  // A die's share of the experts is as many bytes and flops as that share of each expert's columns.
  FfnShard shard;
  shard.columns = static_cast<uint32_t>(afd ? row.ffn_dies : row.attention_dies);
  cost::CycleTimes times;
  times.attention =
      table.AttentionLayer(last, cost::AttentionRows::Even(shape, rows, rows * row.context));
  times.ffn = table.FfnLayer(shard, last, rows * row.attention_dies);
  const uint64_t sent = afd ? rows * row.attention_dies / row.ffn_dies : rows;
  model::Precision precision = table.precision();
  precision.handoff_element_bytes = 1;  // quantised on the way to the experts
  const uint64_t a2f = cost::A2fBytes(shape, precision, last, sent);
  precision.handoff_element_bytes = 2;
  const uint64_t f2a = cost::F2aBytes(shape, precision, sent);
  times.a2f = table.link().Transfer(a2f);
  times.f2a = table.link().Transfer(f2a);
  times.a2f_link = table.link().Occupancy(a2f);
  times.f2a_link = table.link().Occupancy(f2a);
  const auto layers = static_cast<uint32_t>(shape.layers);
  const Duration ends = table.Embed(kSequences) + table.Head(kSequences);
  const Duration step = cost::StepTime(times, afd ? kMicroBatches : 1, layers, ends);
  const auto dies = static_cast<double>(row.attention_dies + row.ffn_dies);
  return static_cast<double>(kSequences * row.attention_dies) / step.seconds() / dies;
}

absl::StatusOr<CostTable> TableOf(const model::ModelShape& shape, double efficiency) {
  cost::CostOptions options;
  options.precision.weights = model::Dtype::kFp8;
  return CostTable::Create(AtlasA3(efficiency), shape, options);
}

}  // namespace

absl::StatusOr<std::string> AfdTable(const model::Catalog& catalog) {
  ASSIGN_OR_RETURN(const model::ModelShape shape, catalog.FindModel("deepseek-v3"));
  double low = 0.01, high = 1.5;
  constexpr int kHalvings = 40;
  for (int i = 0; i < kHalvings; i++) {
    const double middle = (low + high) / 2;
    ASSIGN_OR_RETURN(const CostTable table, TableOf(shape, middle));
    (TokensPerSecond(table, kRows[0]) < kRows[0].measured ? low : high) = middle;
  }
  ASSIGN_OR_RETURN(const CostTable table, TableOf(shape, low));
  std::string text = absl::StrFormat("%s\nThe scalar: %.3f.\n\n", kAssumptions, low);
  absl::StrAppend(&text,
                  "| row | measured tok/s/die | predicted | error | against EP64: measured | "
                  "predicted | sign |\n|---|---|---|---|---|---|---|\n");
  double ep_measured = 0, ep_predicted = 0;
  for (const AfdRow& row : kRows) {
    const double predicted = TokensPerSecond(table, row);
    absl::StrAppendFormat(&text, "| %s | %.1f | %.1f | %+.1f %% |", row.name, row.measured,
                          predicted, 100 * (predicted / row.measured - 1));
    if (row.ffn_dies == 0) {
      ep_measured = row.measured, ep_predicted = predicted;
      absl::StrAppend(&text, &row == &kRows[0] ? " fitted |" : " |", " | |\n");
      continue;
    }
    const double measured_gain = row.measured / ep_measured - 1;
    const double gain = predicted / ep_predicted - 1;
    absl::StrAppendFormat(&text, " %+.1f %% | %+.1f %% | %s |\n", 100 * measured_gain, 100 * gain,
                          (gain > 0) == (measured_gain > 0) ? "right" : "WRONG");
  }
  return text;
}

}  // namespace tandem::truth
