#pragma once

// Causal attention over paged KV, as a ggml custom op. Plain types only: see CMakeLists.txt.

#include <stdint.h>

#include "ggml.h"

namespace tandem::ggml_cpu {

inline constexpr uint32_t kMaxHeadDim = 256;

// One query: it sees the cells of positions 0 to `position` of its sequence.
struct PagedQuery {
  const uint32_t* blocks = nullptr;  // block numbers, ascending position
  uint32_t position = 0;
};

// The op's user data, rewritten for each call of a graph; [rows] queries, in the order of the
// batch.
struct PagedAttentionCall {
  const PagedQuery* queries = nullptr;
  uint32_t block_tokens = 0;
  uint32_t heads = 0, kv_heads = 0, head_dim = 0;
  float scale = 0;  // of the scores: 1 / sqrt(head_dim)
};

// dst [head_dim, heads, rows] F32 = attention of src0 = q [head_dim, heads, rows] F32 over src1,
// src2 = the K and V pools [kv_dim, pool rows] F16.
//
// Bit for bit what ggml_flash_attn_ext's kernel for single queries computes (ggml-cpu/ops.cpp,
// ggml_compute_forward_flash_attn_ext_f16_one_chunk): cells in ascending position, online softmax,
// V accumulated in F16. A query's result depends on no other query, so not on batch or chunk. That
// one cuts long caches into pieces when it has several threads; this one never does.
void PagedAttention(ggml_tensor* dst, int thread, int threads, void* call);

}  // namespace tandem::ggml_cpu
