#pragma once

// The paged KV cache of one worker: K and V of every layer, in blocks of `block_tokens` rows.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "ggml-cpp.h"
#include "scheduler/step/kv_book.h"
#include "workers/backend/ggml/ggml_device.h"
#include "workers/backend/ggml/llama_shape.h"

namespace tandem::ggml_cpu {

// A row is one position's K (after RoPE) or V: F16 [kv_heads, head_dim]. Row r of block b is row b
// * block_tokens + r of the layer's pool. Zero at first, so that a cell never written holds no NaN.
// Where the host cannot address the device's memory, a block may be as large as a sequence: a slot.
class KvPool {
 public:
  // Rows past the last block on devices other than the CPU, so that a view of any block may be
  // padded up to a multiple of this, which the attention kernels of some want.
  static constexpr uint32_t kViewPadding = 256;

  // kResourceExhausted names the bytes that could not be had. `device` outlives the pool.
  static absl::StatusOr<std::unique_ptr<KvPool>> Create(const LlamaShape& shape, uint32_t blocks,
                                                        uint32_t block_tokens, GgmlDevice& device);

  ggml_tensor* keys(uint32_t layer) const { return keys_[layer]; }      // [kv_dim, rows]
  ggml_tensor* values(uint32_t layer) const { return values_[layer]; }  // [kv_dim, rows]
  uint32_t block_tokens() const { return block_tokens_; }
  size_t row_bytes() const { return row_bytes_; }  // of K alone, or of V

  // kInvalidArgument unless the table covers the position with a block of this pool.
  absl::Status CheckPosition(const step::BlockTable& blocks, uint32_t position) const;
  int64_t RowOf(const step::BlockTable& blocks, uint32_t position) const {
    return static_cast<int64_t>(blocks[position / block_tokens_]) * block_tokens_ +
           position % block_tokens_;
  }

  // See StageBackend. kInvalidArgument: layer, positions or the size of the bytes are out of range.
  absl::Status Read(uint32_t layer, const step::BlockTable& blocks, uint32_t first, uint32_t count,
                    absl::Span<uint8_t> out) const;
  absl::Status Write(uint32_t layer, const step::BlockTable& blocks, uint32_t first, uint32_t count,
                     absl::Span<const uint8_t> in);
  absl::Status Copy(absl::Span<const step::KvBook::BlockCopy> copies);

 private:
  absl::Status CheckRange(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                          uint32_t count, size_t bytes) const;
  absl::Status CopyOnDevice(absl::Span<const step::KvBook::BlockCopy> copies);

  GgmlDevice* device_ = nullptr;
  bool host_ = true;  // the host can address it
  uint32_t blocks_ = 0, block_tokens_ = 0;
  size_t row_bytes_ = 0;
  ggml_context_ptr context_;
  ggml_backend_buffer_ptr buffer_;
  std::vector<ggml_tensor*> keys_, values_;  // [layers]
};

}  // namespace tandem::ggml_cpu
