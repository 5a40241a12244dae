#pragma once

// Graphs of one batch shape, built once and run in every step of that shape. Nothing is allocated
// per step.

#include <absl/functional/function_ref.h>
#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <initializer_list>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "ggml-cpp.h"
#include "workers/backend/ggml/ggml_device.h"

namespace tandem::ggml_cpu {

// One graph a layer (one in all for embedding and head), all of one topology, so that they share
// scratch addresses. Inputs lie in a small buffer of their own; those that a kind of graph has not
// are null.
struct GraphSet {
  // Room for `graphs` graphs of up to `nodes` tensors each.
  GraphSet(uint32_t graphs, uint32_t nodes);

  // Adds a graph that computes `first` in that order, then `output`.
  void AddGraph(uint32_t nodes, std::initializer_list<ggml_tensor*> first, ggml_tensor* output);

  ggml_context_ptr input_context, graph_context;
  ggml_backend_buffer_ptr inputs;
  ggml_tensor* x = nullptr;          // [hidden, rows] F32
  ggml_tensor* tokens = nullptr;     // [rows] I32
  ggml_tensor* positions = nullptr;  // [rows] I32
  ggml_tensor* kv_rows = nullptr;    // [rows] I64, where in the pool each row's K and V go
  std::vector<ggml_cgraph*> graphs;
  std::vector<ggml_tensor*> outputs;  // in scratch: valid until the next graph runs
  uint64_t last_used = 0;
};

enum class GraphKind { kEmbed, kAttention, kFfn, kHead };

// Sets by kind and number of rows; the least recently used one goes when there are more than
// kMaxSets. All of a backend's graphs run one after another, so they share one scratch buffer, as
// large as the largest needs. Not thread-safe.
class GraphCache {
 public:
  // Attention, FFN, head and embedding of some 24 batch sizes. A set takes below 1 MB, and about 1
  // ms to build.
  static constexpr size_t kMaxSets = 96;

  explicit GraphCache(GgmlDevice& device);

  // The set, built and given memory if it is not there. It stays until another Get.
  // kResourceExhausted: no memory.
  absl::StatusOr<GraphSet*> Get(GraphKind kind, uint32_t rows,
                                absl::FunctionRef<std::unique_ptr<GraphSet>()> build);
  // Gives a set memory, outside of the cache; it must not outlive the next Allocate or Get.
  absl::Status Allocate(GraphSet& set);

  size_t sets() const { return sets_.size(); }

 private:
  GgmlDevice& device_;
  ggml_gallocr_ptr scratch_;
  std::map<std::pair<GraphKind, uint32_t>, std::unique_ptr<GraphSet>> sets_;
  uint64_t uses_ = 0;
};

}  // namespace tandem::ggml_cpu
