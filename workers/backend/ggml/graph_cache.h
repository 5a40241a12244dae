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
// are null. The last four are for attention over slots (slot_graphs.h).
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
  ggml_tensor* order = nullptr;      // [rows] I64, 0 to rows - 1
  ggml_tensor* attended = nullptr;   // [hidden, rows] F32, where the sequences' results meet
  ggml_tensor* mask = nullptr;       // F16, the sequences' masks one after another
  ggml_tensor* cells = nullptr;      // I32, pool rows of the sequences that are gathered
  std::vector<ggml_cgraph*> graphs;
  std::vector<ggml_tensor*> outputs;  // in scratch: valid until the next graph runs
  std::vector<uint64_t> holds;        // what the inputs hold, as the owner writes it down
  uint64_t last_used = 0;
};

enum class GraphKind { kEmbed, kAttention, kFfn, kHead };

// What tells sets apart. `place`: the buffers and cells that the graphs name, where they do.
struct GraphKey {
  GraphKind kind = GraphKind::kEmbed;
  uint32_t rows = 0;
  std::vector<uint64_t> place = {};
  auto operator<=>(const GraphKey&) const = default;
};

// Sets by key; the least recently used one goes when there are too many. All of a backend's graphs
// run one after another, so they share one scratch buffer, as large as the largest needs. Not
// thread-safe.
class GraphCache {
 public:
  // Attention, FFN, head and embedding of some 24 batch sizes. A set takes below 1 MB, and about 1
  // ms to build.
  static constexpr size_t kMaxSets = 96;

  explicit GraphCache(GgmlDevice& device, size_t max_sets = kMaxSets);

  // The set, built and given memory if it is not there. It stays until another Get.
  // kResourceExhausted: no memory. kUnimplemented: an op that the device has not.
  absl::StatusOr<GraphSet*> Get(const GraphKey& key,
                                absl::FunctionRef<std::unique_ptr<GraphSet>()> build);
  // Gives a set memory, outside of the cache; it must not outlive the next Allocate or Get.
  absl::Status Allocate(GraphSet& set);

  size_t sets() const { return sets_.size(); }

 private:
  GgmlDevice& device_;
  const size_t max_sets_;
  ggml_gallocr_ptr scratch_;
  std::map<GraphKey, std::unique_ptr<GraphSet>> sets_;
  uint64_t uses_ = 0;
};

}  // namespace tandem::ggml_cpu
