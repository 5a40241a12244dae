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

// What the graphs of one backend refer to; all of it outlives them.
struct GraphParts {
  const LlamaShape& shape;
  const ShardWeights& weights;
  KvPool* kv = nullptr;                 // attention graphs need it
  PagedAttentionCall* paged = nullptr;  // and this
};

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
