#pragma once

// The numbers of a dense llama model, and the tensors that follow from them.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "workers/backend/ggml/gguf_metadata.h"

namespace tandem::ggml_cpu {

struct LlamaShape {
  uint32_t layers = 0;
  uint32_t hidden = 0;  // = heads * head_dim
  uint32_t ff = 0;      // width of the FFN
  uint32_t heads = 0, kv_heads = 0, head_dim = 0;
  uint32_t rope_dims = 0;
  uint32_t context_tokens = 0;  // the model was trained for
  float rms_eps = 0;
  float rope_base = 0;

  uint32_t kv_dim() const { return kv_heads * head_dim; }
};

// Reads and checks the metadata. kUnimplemented, naming file and value: another architecture,
// experts, scaled RoPE, head sizes that the paged op does not take. kInvalidArgument: a key
// missing, of a wrong type, or numbers that do not fit.
absl::StatusOr<LlamaShape> ReadLlamaShape(const GgufMetadata& metadata, const std::string& path);

enum class TensorGroup { kAttention, kFfn, kHead };

// A tensor that the model must have.
struct TensorSpec {
  std::string name;  // "blk.3.attn_q.weight"
  TensorGroup group = TensorGroup::kHead;
  int64_t columns = 0;  // ggml's ne[0]
  int64_t rows = 1;     // ggml's ne[1]
  bool norm = false;    // a vector of F32
};

// Every tensor, in layer order; `output_matrix` false when the token embedding is the output matrix
// too.
std::vector<TensorSpec> LlamaTensors(const LlamaShape& shape, uint32_t vocabulary,
                                     bool output_matrix);

}  // namespace tandem::ggml_cpu
