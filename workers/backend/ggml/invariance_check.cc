#include "workers/backend/ggml/invariance_check.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/base/status.h"
#include "workers/backend/ggml/graph_cache.h"

namespace tandem::ggml_cpu {
namespace {

constexpr int64_t kWeightRows = 64;
constexpr uint32_t kBatch = 33;  // past every tile width in ggml-cpu, and odd
constexpr uint64_t kSeed = 20261124;

// The first kWeightRows values of weight * row, for each row of `in`.
absl::StatusOr<std::vector<float>> Product(ggml_tensor* weight, const std::vector<float>& in,
                                           GgmlDevice& device) {
  const int64_t rows = static_cast<int64_t>(in.size()) / weight->ne[0];
  GraphSet set(1, 8);
  ggml_context* context = set.graph_context.get();
  set.x = ggml_new_tensor_2d(set.input_context.get(), GGML_TYPE_F32, weight->ne[0], rows);
  ggml_tensor* head = ggml_view_2d(context, weight, weight->ne[0],
                                   std::min(kWeightRows, weight->ne[1]), weight->nb[1], 0);
  set.AddGraph(8, {}, ggml_mul_mat(context, head, set.x));
  GraphCache scratch(device);
  RETURN_IF_ERROR(scratch.Allocate(set));
  RETURN_IF_ERROR(device.CheckSupported(set.graphs[0]));
  device.Upload(set.x, in.data(), 0, ggml_nbytes(set.x));
  RETURN_IF_ERROR(device.Compute(set.graphs[0]));
  std::vector<float> out(ggml_nelements(set.outputs[0]));
  device.Download(set.outputs[0], out.data(), 0, ggml_nbytes(set.outputs[0]));
  return out;
}

}  // namespace

absl::StatusOr<bool> ProductIsBatchInvariant(ggml_tensor* weight, GgmlDevice& device) {
  const size_t columns = static_cast<size_t>(weight->ne[0]);
  Random random(kSeed);
  std::vector<float> in(columns * kBatch);
  for (float& value : in) value = static_cast<float>(2 * random.Uniform() - 1);
  ASSIGN_OR_RETURN(const std::vector<float> together, Product(weight, in, device));
  const size_t width = together.size() / kBatch;
  for (uint32_t row = 0; row < kBatch; ++row) {
    const std::vector<float> one(in.begin() + static_cast<ptrdiff_t>(row * columns),
                                 in.begin() + static_cast<ptrdiff_t>((row + 1) * columns));
    ASSIGN_OR_RETURN(const std::vector<float> alone, Product(weight, one, device));
    if (std::memcmp(alone.data(), together.data() + row * width, width * sizeof(float)) != 0)
      return false;
  }
  return true;
}

}  // namespace tandem::ggml_cpu
