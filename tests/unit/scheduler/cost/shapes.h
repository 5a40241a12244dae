#pragma once

// Models and a device as values, small enough to check by hand.

#include "scheduler/cost/cost_table.h"
#include "scheduler/model/device.h"
#include "scheduler/model/model_shape.h"

namespace tandem::cost {

inline model::ModelShape Llama70B() {
  model::ModelShape shape;
  shape.name = "llama-3-70b";
  shape.layers = 80, shape.hidden = 8192, shape.heads = 64, shape.kv_heads = 8,
  shape.head_dim = 128;
  shape.ffn = 28672, shape.vocabulary = 128256, shape.context_tokens = 131072;
  return shape;
}

// DeepSeek-V3: MLA, 256 experts of which 8, one shared, the first 3 of 61 layers dense.
inline model::ModelShape DeepSeekV3() {
  model::ModelShape shape;
  shape.name = "deepseek-v3";
  shape.layers = 61, shape.hidden = 7168, shape.heads = 128, shape.kv_heads = 1;
  shape.latent = model::LatentAttention{1536, 512, 64, 128, 128};
  shape.head_dim = 576;
  shape.ffn = 2048, shape.experts = 256, shape.experts_per_token = 8, shape.shared_experts = 1;
  shape.dense_layers = 3, shape.dense_ffn = 18432;
  shape.vocabulary = 129280, shape.context_tokens = 163840;
  return shape;
}

inline model::Figure Known(double value) { return {value, model::Mark::kMeasured, "a test"}; }

// 1 byte and 1 flop a second with perfect efficiency: seconds are bytes and flops. p is the max
// form, and nothing else takes time.
inline model::Device UnitDevice(uint32_t tp = 1) {
  model::Device device;
  device.name = "unit";
  device.count = device.tp = tp;
  model::Chip& chip = device.chip;
  chip.memory_bytes = Known(100e9);
  chip.usable_memory = Known(1);
  chip.workspace_bytes = Known(0);
  chip.bandwidth_bytes_per_s = Known(1);
  model::DtypeFigures& figures = chip.dtypes[model::Dtype::kBf16];
  figures.peak_flops = figures.bandwidth_efficiency = figures.compute_efficiency =
      figures.expert_factor = figures.prefill_compute_efficiency = Known(1);
  figures.exponent = figures.layer_seconds = figures.prefill_layer_seconds = Known(0);
  device.all_reduce = {Known(0), Known(0), Known(1e30)};
  device.link = {Known(100), Known(2)};
  return device;
}

// A model of one layer whose weights are a few bytes.
inline model::ModelShape TinyShape() {
  model::ModelShape shape;
  shape.name = "tiny";
  shape.layers = 2, shape.hidden = 4, shape.heads = 2, shape.kv_heads = 2, shape.head_dim = 2;
  shape.ffn = 8, shape.vocabulary = 10, shape.context_tokens = 100;
  return shape;
}

}  // namespace tandem::cost
