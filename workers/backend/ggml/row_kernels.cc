#include "workers/backend/ggml/row_kernels.h"

namespace tandem::ggml_cpu {

void AddRows(size_t n, const float* a, const float* b, float* out) {
#pragma GCC ivdep
  for (size_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

}  // namespace tandem::ggml_cpu
