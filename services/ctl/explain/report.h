#pragma once

// One decode step of a live request, operation by operation: what `tandemctl explain` prints. Plain
// values; build.h makes them, render.h shows them.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace tandem::ctl {

// One operation of the step, or of its layers: of all micro-batches together.
struct ExplainedOp {
  std::string name;                        // "q_proj", as scheduler/cost/ops.h calls it
  std::string title;                       // a sentence for somebody new
  std::string shape;                       // "[1, 576] x [576, 576]"
  double weight_bytes = 0, kv_bytes = 0;   // read from the device's memory
  double read_bytes = 0, write_bytes = 0;  // activations, new K and V
  double link_bytes = 0;                   // over the link between two workers
  double flops = 0;
  std::optional<double> model_seconds;  // by the cost model; none: no figures of the device

  double memory_bytes() const { return weight_bytes + kv_bytes + read_bytes + write_bytes; }
  double intensity() const { return memory_bytes() > 0 ? flops / memory_bytes() : 0; }
};

// Everything up to here, from the step's start.
struct ExplainTotal {
  double memory_bytes = 0, link_bytes = 0, flops = 0;
  double measured_seconds = 0;          // of spans, one after the other
  std::optional<double> model_seconds;  // none: some of it has no figures
};

// A measured piece of the step: what one device, or a link, did in one go.
enum class PartKind { kEmbed, kAttention, kA2f, kQueue, kFfn, kF2a, kHead };
const char* ToString(PartKind kind);  // "embed", "attention", "a2f", ...

struct ExplainedPart {
  PartKind kind = PartKind::kEmbed;
  std::optional<uint32_t> layer;     // none: embed and head
  std::vector<std::string> workers;  // that did it; of a transfer its two ends
  double begin_seconds = 0;          // from the step's start; of the first micro-batch
  double measured_seconds = 0;       // of all micro-batches
  std::optional<double> model_seconds;
  std::vector<ExplainedOp> ops;
  std::string note;  // what to know of it; may be empty
  // Behind each of `ops`: bytes, flops and the model's time; the part's measured time comes with
  // the last.
  std::vector<ExplainTotal> totals;
};

// Layers whose operations are the same: shown once, with the spread of what was measured.
struct Spread {
  PartKind kind = PartKind::kAttention;
  double min_seconds = 0, median_seconds = 0, max_seconds = 0, sum_seconds = 0;
};
struct LayerGroup {
  std::vector<uint32_t> layers;  // ascending
  std::vector<Spread> spreads;   // by kind, in the order of a layer
};

struct ExplainedWorker {
  std::string id, pool, stages, memory_class;
  std::string device;    // as it registered: "emulated/h100-x8", "ggml-cpu"
  std::string chip;      // the catalog's of that device: "8 x h100-sxm"; empty: it has none
  std::string forecast;  // the chip that times are forecast with; empty: none
  std::string weights;   // "fp8", "5.04 bits a weight as loaded"
  std::string no_model;  // why there is no time by the cost model; empty: there is
};

struct MicroBatch {
  uint32_t rows = 0, context_tokens = 0;  // positions that its rows attend to, of all of them
};

struct Candidate {
  std::string text;
  double logprob = 0;
  double probability() const;
  bool chosen = false;
};

struct ExplainedToken {
  uint32_t id = 0;
  std::string text;
  std::optional<double> logprob;
};

struct ExplainReport {
  // ---- The request.
  std::string prompt, model, topology;
  std::string shape_source;  // where the model's shape comes from
  uint32_t prompt_tokens = 0;
  std::vector<ExplainedToken> tokens;  // that the API returned; the last one's step is explained
  std::string sampling;                // "greedy", "temperature 0.8, seed 7"
  std::vector<Candidate> candidates;   // descending; empty: the device has none
  // ---- The step.
  std::string attention_worker;
  uint64_t step = 0;
  uint32_t position = 0;  // of the row that is explained, in its sequence, from 0
  std::vector<MicroBatch> micro_batches;
  double step_seconds = 0;            // from its first task to its last one's end
  double attention_busy_seconds = 0;  // of the attention worker's device, in the step
  double ffn_busy_seconds = 0;        // of FFN devices, for the step
  double time_scale = 0;              // machine seconds for one of the devices'; 0: real time
  double clock_error_seconds = 0;     // A2F and F2A are known to this
  uint64_t spans_lost = 0;
  uint32_t layers = 0;
  std::vector<ExplainedWorker> workers;
  std::vector<ExplainedPart> parts;  // in order: embed, layers, head
  std::vector<LayerGroup> groups;    // by first layer
  std::vector<std::string> notes;    // what the figures leave out or suppose

  uint32_t rows() const;
  const ExplainTotal& total() const { return parts.back().totals.back(); }
  // Every part has operations, so both are there.
  std::vector<const ExplainedPart*> PartsOfLayer(uint32_t layer) const;
};

}  // namespace tandem::ctl
