#pragma once

// A small chip, device and model as YAML, for tests that bend them one line at a time.

#include <absl/strings/string_view.h>

namespace tandem::model {

inline constexpr absl::string_view kChipText = R"(name: tiny
memory_class: sram
memory_bytes: {value: 44e9, mark: stated, source: "data sheet"}
usable_memory: {value: 1, mark: assumed, source: "all"}
workspace_bytes: {value: 0, mark: assumed, source: "none"}
bandwidth_bytes_per_s: {value: 21e15, mark: stated, source: "data sheet"}
scale_up:
  bytes_per_s: {value: unknown, source: "looked for, not found"}
  latency_seconds: {value: unknown, source: "looked for, not found"}
scale_out:
  bytes_per_s: {value: 150e9, mark: measured, source: "a test"}
  latency_seconds: {value: 5e-6, mark: measured, source: "a test"}
power_watts: {value: unknown, source: "looked for, not found"}
dollars_per_hour: {value: 7.2, mark: stated, source: "price list"}
dtypes:
  bf16:
    peak_flops: {value: 125e15, mark: stated, source: "data sheet"}
    bandwidth_efficiency: {value: 1, mark: assumed, source: "best"}
    compute_efficiency: {value: 0.4, mark: assumed, source: "as others"}
    exponent: {value: 0, mark: assumed, source: "the max form"}
    layer_seconds: {value: 17.3e-6, mark: fitted, source: "a system"}
    expert_factor: {value: 1.6, mark: assumed, source: "as others"}
    prefill_compute_efficiency: {value: 0.4, mark: assumed, source: "as others"}
    prefill_layer_seconds: {value: 17.3e-6, mark: assumed, source: "as decode"}
)";

inline constexpr absl::string_view kDeviceText = R"(name: tiny-x4
source: "a test"
chip: tiny
count: 4
tp: 2
all_reduce:
  base_seconds: {value: 3.9e-6, mark: fitted, source: "rows"}
  doubling_seconds: {value: 2.1e-6, mark: fitted, source: "rows"}
  bytes_per_s: {value: 450e9, mark: stated, source: "data sheet"}
link:
  bytes_per_s: {value: 600e9, mark: stated, source: "4 x 150 GB/s"}
  latency_seconds: {value: 5e-6, mark: measured, source: "a test"}
layer_seconds:
  bf16: {value: 27.7e-6, mark: fitted, source: "a larger system"}
)";

inline constexpr absl::string_view kModelText = R"(name: small
source: "a test"
layers: 6
hidden: 64
vocabulary: 100
context_tokens: 1024
heads: 4
kv_heads: 2
head_dim: 16
window: 128
full_attention_every: 3
ffn: 32
experts: 8
experts_per_token: 2
shared_experts: 1
dense_layers: 1
dense_ffn: 256
)";

}  // namespace tandem::model
