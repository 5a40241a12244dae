#pragma once

// The weights of some stages of a model, in memory.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "ggml-cpp.h"
#include "scheduler/view/worker.h"
#include "workers/backend/ggml/ggml_device.h"
#include "workers/backend/ggml/gguf_model.h"

namespace tandem::ggml_cpu {

// Only the tensors that the stages use are given memory: prefill all, attention attn_* and the
// head's (token embedding, final norm, output matrix), ffn the ffn_* of the shard's layers. Of a
// piece of columns ffn_gate and ffn_up are cut by rows, ffn_down along its rows, between
// quantisation blocks; ffn_norm is there whole. Immutable once loaded.
class ShardWeights {
 public:
  // `shard` is resolved, and may be without a layer; other than whole only with the ffn stage
  // alone. kInvalidArgument: the columns cannot be cut so (CutColumns). kResourceExhausted names
  // the bytes that could not be had; kUnimplemented names a tensor whose product depends on the
  // batch (see invariance_check.h), on the CPU: on other devices it is told apart by its class;
  // else what GgufModel::Read says.
  static absl::StatusOr<std::unique_ptr<ShardWeights>> Load(const GgufModel& model,
                                                            const std::set<Stage>& stages,
                                                            const FfnShard& shard,
                                                            GgmlDevice& device);

  const FfnShard& shard() const { return shard_; }
  // False on a device whose products of some loaded type depend on the batch.
  bool products_batch_invariant() const { return products_batch_invariant_; }
  bool Holds(TensorGroup group) const { return groups_.contains(group); }
  uint64_t bytes(TensorGroup group) const;
  // Tensor "blk.<layer>.<part>.weight" or "<name>.weight"; it is one of the loaded.
  ggml_tensor* Layer(uint32_t layer, const char* part) const;
  ggml_tensor* Global(const char* name) const;
  // The output matrix; the token embedding where the model has none of its own.
  ggml_tensor* OutputMatrix() const;

 private:
  // Where a tensor's part lies in the file's tensor: `bytes` of each of `rows` rows.
  struct Part {
    uint64_t first_row = 0, rows = 0;
    uint64_t row_bytes = 0, offset = 0, bytes = 0;  // within a row of the file's
  };
  absl::Status AddTensor(const GgufModel& model, const TensorSpec& spec);
  absl::Status ReadTensors(const GgufModel& model);
  absl::Status CheckProducts(const GgufModel& model, GgmlDevice& device);

  FfnShard shard_;
  bool products_batch_invariant_ = true;
  std::map<std::string, Part> parts_;  // of those that are not whole
  std::set<TensorGroup> groups_;
  std::map<TensorGroup, uint64_t> bytes_;
  ggml_context_ptr context_;
  ggml_backend_buffer_ptr buffer_;
  std::map<std::string, ggml_tensor*> tensors_;
};

}  // namespace tandem::ggml_cpu
