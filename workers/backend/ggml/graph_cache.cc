#include "workers/backend/ggml/graph_cache.h"

#include <absl/strings/str_cat.h>

#include <algorithm>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"

namespace tandem::ggml_cpu {
namespace {

constexpr size_t kMaxInputs = 8;

}  // namespace

GraphSet::GraphSet(uint32_t graphs, uint32_t nodes)
    : input_context(ggml_init({ggml_tensor_overhead() * kMaxInputs, nullptr, /*no_alloc=*/true})),
      graph_context(ggml_init(
          {graphs * (ggml_tensor_overhead() * nodes + ggml_graph_overhead_custom(nodes, false)),
           nullptr, /*no_alloc=*/true})) {
  TANDEM_CHECK(input_context != nullptr && graph_context != nullptr);
}

void GraphSet::AddGraph(uint32_t nodes, std::initializer_list<ggml_tensor*> first,
                        ggml_tensor* output) {
  ggml_cgraph* graph = ggml_new_graph_custom(graph_context.get(), nodes, false);
  ggml_set_output(output);
  for (ggml_tensor* tensor : first) ggml_build_forward_expand(graph, tensor);
  ggml_build_forward_expand(graph, output);
  graphs.push_back(graph);
  outputs.push_back(output);
}

GraphCache::GraphCache(GgmlDevice& device, size_t max_sets)
    : device_(device),
      max_sets_(max_sets),
      scratch_(ggml_gallocr_new(ggml_backend_get_default_buffer_type(device.backend()))) {}

absl::Status GraphCache::Allocate(GraphSet& set) {
  if (!device_.cpu()) device_.Synchronize();  // what is in flight may use what is given back here
  const bool has_inputs = ggml_get_first_tensor(set.input_context.get()) != nullptr;
  if (has_inputs)
    set.inputs.reset(ggml_backend_alloc_ctx_tensors(set.input_context.get(), device_.backend()));
  const size_t before = ggml_gallocr_get_buffer_size(scratch_.get(), 0);
  if ((has_inputs && set.inputs == nullptr) ||
      !ggml_gallocr_reserve(scratch_.get(), set.graphs[0])) {
    sets_.clear();
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for a graph beside ", before, " bytes of scratch"));
  }
  const size_t after = ggml_gallocr_get_buffer_size(scratch_.get(), 0);
  if (after != before)
    sets_.clear();  // The buffer grew and moved; the other sets point into the old one.
  for (ggml_cgraph* graph : set.graphs)
    TANDEM_CHECK(ggml_gallocr_alloc_graph(scratch_.get(), graph));
  TANDEM_CHECK(ggml_gallocr_get_buffer_size(scratch_.get(), 0) == after);
  return absl::OkStatus();
}

absl::StatusOr<GraphSet*> GraphCache::Get(const GraphKey& key,
                                          absl::FunctionRef<std::unique_ptr<GraphSet>()> build) {
  auto it = sets_.find(key);
  if (it == sets_.end()) {
    std::unique_ptr<GraphSet> set = build();
    if (!device_.cpu()) RETURN_IF_ERROR(device_.CheckSupported(set->graphs[0]));
    RETURN_IF_ERROR(Allocate(*set));
    if (sets_.size() >= max_sets_) {
      sets_.erase(std::min_element(sets_.begin(), sets_.end(), [](const auto& a, const auto& b) {
        return a.second->last_used < b.second->last_used;
      }));
    }
    it = sets_.emplace(key, std::move(set)).first;
  }
  it->second->last_used = ++uses_;
  return it->second.get();
}

}  // namespace tandem::ggml_cpu
