#pragma once

// The shape of a language model, as the cost model sees it: llama architecture, dense or with
// uniform experts.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>

namespace tandem::model {

struct ModelShape {
  std::string name;
  std::string source;
  uint64_t layers = 0, hidden = 0, heads = 0, kv_heads = 0, head_dim = 0;
  uint64_t ffn = 0;  // width of the FFN, or of one expert
  uint64_t vocabulary = 0, context_tokens = 0;
  uint64_t experts = 0;  // 0: dense
  uint64_t experts_per_token = 0;
  uint64_t weight_bits = 16;  // per parameter
  uint64_t kv_bytes = 2;      // per element of K and V

  uint64_t attention_parameters() const;  // of one layer: Q, K, V and output
  uint64_t ffn_parameters() const;  // of one layer, or of one expert: gate, up and down (SwiGLU)
  uint64_t head_parameters() const { return vocabulary * hidden; }
  uint64_t kv_bytes_per_token() const;  // all layers
};

// kInvalidArgument names line and key.
absl::StatusOr<ModelShape> ReadModelShape(absl::string_view yaml, absl::string_view where);

}  // namespace tandem::model
