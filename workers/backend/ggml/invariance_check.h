#pragma once

// Does a weight's product with a row depend on the rows beside it?

#include <absl/status/statusor.h>

#include "ggml.h"
#include "workers/backend/ggml/ggml_device.h"

namespace tandem::ggml_cpu {

// Multiplies the first rows of `weight` [columns, rows] with some rows alone and in a batch, and
// compares bits. ggml has batched kernels with another order of summation for some types (F32, F16
// and BF16 by llamafile's sgemm, K-quants by a tiled one): false for those, true for q4_1 and q8_0.
// Takes well under a millisecond of a common matrix.
absl::StatusOr<bool> ProductIsBatchInvariant(ggml_tensor* weight, GgmlDevice& device);

}  // namespace tandem::ggml_cpu
