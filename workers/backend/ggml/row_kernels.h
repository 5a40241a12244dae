#pragma once

// Element-wise work on rows that the host does between graphs. Plain types only: see
// CMakeLists.txt.

#include <stddef.h>

namespace tandem::ggml_cpu {

// out[i] = a[i] + b[i], i < n: the same bits as ggml_add. `out` may be `a` or `b`, and overlaps
// them in no other way.
void AddRows(size_t n, const float* a, const float* b, float* out);

}  // namespace tandem::ggml_cpu
