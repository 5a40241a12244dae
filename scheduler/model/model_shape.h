#pragma once

// The shape of a language model, as the cost model sees it: decoder layers of attention (GQA or
// MLA, full or in a sliding window) and a SwiGLU FFN (dense or uniform experts). It has no number
// format: dtype.h. Parameters leave out norms and biases, as facts/models.md does.

#include <absl/container/inlined_vector.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "scheduler/model/dtype.h"

namespace tandem::model {

// Multi-head latent attention: what is cached is one latent vector and one rotary key a position,
// shared by all heads. Source: DeepSeek-V3's config.json, facts/models.md.
struct LatentAttention {
  uint64_t q_rank = 0;     // q_lora_rank; 0: the query has no low-rank step
  uint64_t kv_rank = 0;    // kv_lora_rank, the latent's width
  uint64_t rope_dim = 0;   // the rotary part of a head, and of the cache
  uint64_t nope_dim = 0;   // the other part of a query and key head
  uint64_t value_dim = 0;  // of a value head
};

// A projection of one layer, [inputs, outputs]; the name that model files give it.
struct Matrix {
  absl::string_view name;
  uint64_t inputs = 0, outputs = 0;

  uint64_t parameters() const { return inputs * outputs; }
};

struct ModelShape {
  std::string name;
  std::string source;
  uint64_t layers = 0, hidden = 0, heads = 0;
  uint64_t kv_heads = 0, head_dim = 0;  // with MLA 1, and the cached elements of a position
  uint64_t ffn = 0;                     // width of the FFN, or of one expert
  uint64_t vocabulary = 0, context_tokens = 0;
  bool tied_embeddings = false;  // one matrix is both embedding and head
  uint64_t experts = 0;          // routed ones; 0: dense
  uint64_t experts_per_token = 0;
  uint64_t shared_experts = 0;  // computed for every row
  uint64_t dense_layers = 0;    // the first so many layers have a dense FFN of `dense_ffn`
  uint64_t dense_ffn = 0;
  uint64_t window = 0;                // positions that a windowed layer attends to; 0: none is
  uint64_t full_attention_every = 0;  // layers n-1, 2n-1, ... are full all the same; 0: none
  std::optional<LatentAttention> latent;
  // What attention's matrices and the gate are kept in where the model is published with others'
  // weights in the first format; by default in the same.
  std::map<Dtype, Dtype> attention_dtypes;

  Dtype AttentionDtype(Dtype weights) const;
  bool HasExperts(uint64_t layer) const { return experts > 0 && layer >= dense_layers; }
  bool IsWindowed(uint64_t layer) const;
  uint64_t windowed_layers() const;

  // Projections of Q, K, V and output of one layer, the output's last. MLA's K and V are two: down
  // to the latent (kv_a), which is cached, and up to the heads (kv_b).
  absl::InlinedVector<Matrix, 5> attention_matrices() const;
  uint64_t attention_parameters() const;                           // of all of these
  uint64_t router_parameters(uint64_t layer) const;                // the experts' gate
  uint64_t expert_parameters() const { return 3 * hidden * ffn; }  // gate, up and down of one
  uint64_t ffn_parameters(uint64_t layer) const;  // all experts and shared ones, or the dense FFN
  uint64_t head_parameters() const { return vocabulary * hidden; }
  uint64_t parameters() const;         // of the whole model
  uint64_t active_parameters() const;  // of those, what one token uses; embeddings count

  uint64_t kv_elements() const;  // cached for one position of one layer
  // Elements that one more position of a sequence adds: all layers, and those that are never full
  // of it (facts/models.md's "growing").
  uint64_t kv_elements_per_token() const { return layers * kv_elements(); }
  uint64_t kv_elements_growing() const { return (layers - windowed_layers()) * kv_elements(); }
};

// kInvalidArgument names file, line and key.
absl::StatusOr<ModelShape> ReadModelShape(absl::string_view yaml, absl::string_view where);

}  // namespace tandem::model
