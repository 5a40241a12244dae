#include "workers/backend/ggml/paged_attention.h"

#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "ggml-cpu.h"

namespace tandem::ggml_cpu {
namespace {

// y *= v over n halves (a multiple of 8), each rounded to F16: ggml_vec_scale_f16.
inline void ScaleHalves(uint32_t n, ggml_fp16_t* y, float v) {
  const __m256 factor = _mm256_set1_ps(v);
  for (uint32_t i = 0; i < n; i += 8) {
    __m128i* at = reinterpret_cast<__m128i*>(y + i);
    const __m256 product = _mm256_mul_ps(_mm256_cvtph_ps(_mm_loadu_si128(at)), factor);
    _mm_storeu_si128(at, _mm256_cvtps_ph(product, _MM_FROUND_TO_NEAREST_INT));
  }
}

// y += x * v over n halves (a multiple of 8), fused, each rounded to F16: ggml_vec_mad_f16.
inline void AddScaledHalves(uint32_t n, ggml_fp16_t* y, const ggml_fp16_t* x, float v) {
  const __m256 factor = _mm256_set1_ps(v);
  for (uint32_t i = 0; i < n; i += 8) {
    __m128i* at = reinterpret_cast<__m128i*>(y + i);
    const __m256 addend = _mm256_cvtph_ps(_mm_loadu_si128(at));
    const __m256 value = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(x + i)));
    _mm_storeu_si128(
        at, _mm256_cvtps_ph(_mm256_fmadd_ps(value, factor, addend), _MM_FROUND_TO_NEAREST_INT));
  }
}

// One head of one query. `keys` and `values` point at the KV head within row 0 of the pools.
void AttendHead(const PagedAttentionCall& call, const PagedQuery& query, const float* q,
                const char* keys, size_t key_stride, const char* values, size_t value_stride,
                float* out) {
  static const ggml_type_traits_cpu* const halves = ggml_get_type_traits_cpu(GGML_TYPE_F16);
  const uint32_t dim = call.head_dim;
  alignas(64) ggml_fp16_t q_halves[kMaxHeadDim];
  alignas(64) ggml_fp16_t sum_halves[kMaxHeadDim];
  alignas(64) float sum[kMaxHeadDim];
  halves->from_float(q, q_halves, dim);
  memset(sum_halves, 0, dim * sizeof(ggml_fp16_t));
  float total = 0.0f;      // of the weights
  float best = -INFINITY;  // highest score so far; weights are relative to it
  uint32_t left = query.position + 1;
  for (const uint32_t* block = query.blocks; left > 0; ++block) {
    const uint32_t cells = left < call.block_tokens ? left : call.block_tokens;
    const size_t first_row = static_cast<size_t>(*block) * call.block_tokens;
    for (size_t row = first_row; row < first_row + cells; ++row) {
      float score = 0.0f;
      halves->vec_dot(static_cast<int>(dim), &score, 0, keys + row * key_stride, 0, q_halves, 0, 1);
      score = score * call.scale + 0.0f;  // ggml adds the mask's 0 here
      float rescale = 1.0f, weight = 1.0f;
      if (score > best) {
        rescale = expf(best - score);
        best = score;
        ScaleHalves(dim, sum_halves, rescale);
      } else {
        weight = expf(score - best);
      }
      AddScaledHalves(dim, sum_halves,
                      reinterpret_cast<const ggml_fp16_t*>(values + row * value_stride), weight);
      total = total * rescale + weight;  // must become one fused multiply-add, as in ggml
    }
    left -= cells;
  }
  ggml_fp16_to_fp32_row(sum_halves, sum, dim);
  const float inverse = 1.0f / total;
  for (uint32_t i = 0; i < dim; ++i) out[i] = sum[i] * inverse;
}

}  // namespace

void PagedAttention(ggml_tensor* dst, int thread, int threads, void* user_data) {
  const PagedAttentionCall& call = *static_cast<const PagedAttentionCall*>(user_data);
  const ggml_tensor *q = dst->src[0], *keys = dst->src[1], *values = dst->src[2];
  const uint32_t queries_per_kv_head = call.heads / call.kv_heads;
  const int tasks = static_cast<int>(q->ne[2]) * static_cast<int>(call.heads);
  for (int task = thread; task < tasks; task += threads) {
    const size_t row = static_cast<uint32_t>(task) / call.heads,
                 head = static_cast<uint32_t>(task) % call.heads;
    const size_t head_offset = (head / queries_per_kv_head) * call.head_dim * sizeof(ggml_fp16_t);
    const char* q_data = static_cast<const char*>(q->data) + row * q->nb[2] + head * q->nb[1];
    char* out = static_cast<char*>(dst->data) + row * dst->nb[2] + head * dst->nb[1];
    AttendHead(call, call.queries[row], reinterpret_cast<const float*>(q_data),
               static_cast<const char*>(keys->data) + head_offset, keys->nb[1],
               static_cast<const char*>(values->data) + head_offset, values->nb[1],
               reinterpret_cast<float*>(out));
  }
}

}  // namespace tandem::ggml_cpu
