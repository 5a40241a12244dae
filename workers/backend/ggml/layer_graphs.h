#pragma once

// The graphs of a dense llama layer, cut between attention and FFN. The same ops in the same order
// as llama.cpp's src/models/llama.cpp, so that the bits are the same.

#include <cstdint>
#include <memory>

#include "workers/backend/ggml/graph_cache.h"
#include "workers/backend/ggml/kv_pool.h"
#include "workers/backend/ggml/llama_shape.h"
#include "workers/backend/ggml/paged_attention.h"
#include "workers/backend/ggml/shard_weights.h"

namespace tandem::ggml_cpu {

inline constexpr uint32_t kMaxNodes = 32;  // tensors of one layer's graph

// What the graphs of one backend refer to; all of it outlives them.
struct GraphParts {
  const LlamaShape& shape;
  const ShardWeights& weights;
  KvPool* kv = nullptr;                 // attention graphs need it
  PagedAttentionCall* paged = nullptr;  // and this
};

// The steps of which graphs are made, here and for other devices (slot_graphs.h).

// Queries of rows x [hidden, rows], their K and V written into the pool at set.kv_rows, and the
// whole pools as they are after that: what reads those is computed later.
struct Projected {
  ggml_tensor* q = nullptr;       // [head_dim, heads, rows]
  ggml_tensor* keys = nullptr;    // [kv_dim, pool rows]
  ggml_tensor* values = nullptr;  // [kv_dim, pool rows]
};
Projected Project(const GraphParts& parts, GraphSet& set, uint32_t layer, ggml_tensor* x);
// x + the output matrix times what was attended [hidden, rows].
ggml_tensor* AddAttended(const GraphParts& parts, GraphSet& set, uint32_t layer,
                         ggml_tensor* attended, ggml_tensor* x);
ggml_tensor* Ffn(const GraphParts& parts, GraphSet& set, uint32_t layer, ggml_tensor* x);
ggml_tensor* Logits(const GraphParts& parts, GraphSet& set, ggml_tensor* x);

// tokens -> embeddings [hidden, rows]
std::unique_ptr<GraphSet> BuildEmbedGraphs(const GraphParts& parts, uint32_t rows);
// x, positions, kv_rows -> x + attention of the layer [hidden, rows]; one graph a layer
std::unique_ptr<GraphSet> BuildAttentionGraphs(const GraphParts& parts, uint32_t rows);
// x -> FFN of the layer, or the shard's partial of it, without x [hidden, rows]; one graph a layer
// that the shard holds
std::unique_ptr<GraphSet> BuildFfnGraphs(const GraphParts& parts, uint32_t rows);
// x -> logits [vocabulary, rows]
std::unique_ptr<GraphSet> BuildHeadGraphs(const GraphParts& parts, uint32_t rows);

}  // namespace tandem::ggml_cpu
