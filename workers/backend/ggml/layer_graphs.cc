#include "workers/backend/ggml/layer_graphs.h"

namespace tandem::ggml_cpu {
namespace {

ggml_tensor* NewRows(GraphSet& set, const LlamaShape& shape, uint32_t rows) {
  return ggml_new_tensor_2d(set.input_context.get(), GGML_TYPE_F32, shape.hidden, rows);
}

ggml_tensor* Norm(ggml_context* context, const LlamaShape& shape, ggml_tensor* x,
                  ggml_tensor* weight) {
  return ggml_mul(context, ggml_rms_norm(context, x, shape.rms_eps), weight);
}

// Adjacent pairs (mode NORMAL), as the llama architecture has it; the last six numbers are
// llama.cpp's for unscaled RoPE.
ggml_tensor* Rope(ggml_context* context, const LlamaShape& shape, ggml_tensor* x,
                  ggml_tensor* positions) {
  return ggml_rope_ext(context, x, positions, nullptr, static_cast<int>(shape.rope_dims),
                       GGML_ROPE_TYPE_NORMAL, static_cast<int>(shape.context_tokens),
                       shape.rope_base, 1.0f, 0.0f, 1.0f, 32.0f, 1.0f);
}

void AddAttentionGraph(const GraphParts& parts, GraphSet& set, uint32_t layer, int64_t rows) {
  const LlamaShape& shape = parts.shape;
  ggml_context* c = set.graph_context.get();
  const Projected projected = Project(parts, set, layer, set.x);
  ggml_tensor* args[] = {projected.q, projected.keys, projected.values};
  ggml_tensor* attended = ggml_custom_4d(c, GGML_TYPE_F32, shape.head_dim, shape.heads, rows, 1,
                                         args, 3, PagedAttention, GGML_N_TASKS_MAX, parts.paged);
  attended = ggml_reshape_2d(c, attended, shape.hidden, rows);
  set.AddGraph(kMaxNodes, {}, AddAttended(parts, set, layer, attended, set.x));
}

}  // namespace

Projected Project(const GraphParts& parts, GraphSet& set, uint32_t layer, ggml_tensor* x) {
  const LlamaShape& shape = parts.shape;
  const ShardWeights& weights = parts.weights;
  ggml_context* c = set.graph_context.get();
  const int64_t rows = x->ne[1];
  ggml_tensor* normed = Norm(c, shape, x, weights.Layer(layer, "attn_norm"));
  ggml_tensor* q = ggml_mul_mat(c, weights.Layer(layer, "attn_q"), normed);
  ggml_tensor* k = ggml_mul_mat(c, weights.Layer(layer, "attn_k"), normed);
  ggml_tensor* v = ggml_mul_mat(c, weights.Layer(layer, "attn_v"), normed);
  q = Rope(c, shape, ggml_reshape_3d(c, q, shape.head_dim, shape.heads, rows), set.positions);
  k = Rope(c, shape, ggml_reshape_3d(c, k, shape.head_dim, shape.kv_heads, rows), set.positions);
  k = ggml_reshape_2d(c, k, shape.kv_dim(), rows);
  return {q, ggml_set_rows(c, parts.kv->keys(layer), k, set.kv_rows),
          ggml_set_rows(c, parts.kv->values(layer), v, set.kv_rows)};
}

ggml_tensor* AddAttended(const GraphParts& parts, GraphSet& set, uint32_t layer,
                         ggml_tensor* attended, ggml_tensor* x) {
  ggml_context* c = set.graph_context.get();
  return ggml_add(c, ggml_mul_mat(c, parts.weights.Layer(layer, "attn_output"), attended), x);
}

ggml_tensor* Ffn(const GraphParts& parts, GraphSet& set, uint32_t layer, ggml_tensor* x) {
  ggml_context* c = set.graph_context.get();
  ggml_tensor* normed = Norm(c, parts.shape, x, parts.weights.Layer(layer, "ffn_norm"));
  ggml_tensor* up = ggml_mul_mat(c, parts.weights.Layer(layer, "ffn_up"), normed);
  ggml_tensor* gate = ggml_mul_mat(c, parts.weights.Layer(layer, "ffn_gate"), normed);
  ggml_tensor* gated = ggml_swiglu_split(c, gate, up);
  return ggml_mul_mat(c, parts.weights.Layer(layer, "ffn_down"), gated);
}

ggml_tensor* Logits(const GraphParts& parts, GraphSet& set, ggml_tensor* x) {
  ggml_context* c = set.graph_context.get();
  ggml_tensor* normed = Norm(c, parts.shape, x, parts.weights.Global("output_norm"));
  return ggml_mul_mat(c, parts.weights.OutputMatrix(), normed);
}

std::unique_ptr<GraphSet> BuildEmbedGraphs(const GraphParts& parts, uint32_t rows) {
  auto set = std::make_unique<GraphSet>(1, kMaxNodes);
  set->tokens = ggml_new_tensor_1d(set->input_context.get(), GGML_TYPE_I32, rows);
  set->AddGraph(
      kMaxNodes, {},
      ggml_get_rows(set->graph_context.get(), parts.weights.Global("token_embd"), set->tokens));
  return set;
}

std::unique_ptr<GraphSet> BuildAttentionGraphs(const GraphParts& parts, uint32_t rows) {
  auto set = std::make_unique<GraphSet>(parts.shape.layers, kMaxNodes);
  set->x = NewRows(*set, parts.shape, rows);
  set->positions = ggml_new_tensor_1d(set->input_context.get(), GGML_TYPE_I32, rows);
  set->kv_rows = ggml_new_tensor_1d(set->input_context.get(), GGML_TYPE_I64, rows);
  for (uint32_t layer = 0; layer < parts.shape.layers; ++layer)
    AddAttentionGraph(parts, *set, layer, rows);
  return set;
}

std::unique_ptr<GraphSet> BuildFfnGraphs(const GraphParts& parts, uint32_t rows) {
  const FfnShard& shard = parts.weights.shard();
  auto set = std::make_unique<GraphSet>(shard.last_layer - shard.first_layer, kMaxNodes);
  set->x = NewRows(*set, parts.shape, rows);
  for (uint32_t layer = shard.first_layer; layer < shard.last_layer; ++layer)
    set->AddGraph(kMaxNodes, {}, Ffn(parts, *set, layer, set->x));
  return set;
}

std::unique_ptr<GraphSet> BuildHeadGraphs(const GraphParts& parts, uint32_t rows) {
  auto set = std::make_unique<GraphSet>(1, kMaxNodes);
  set->x = NewRows(*set, parts.shape, rows);
  set->AddGraph(kMaxNodes, {}, Logits(parts, *set, set->x));
  return set;
}

}  // namespace tandem::ggml_cpu
