#include "workers/backend/ggml/kv_pool.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cstring>

#include "scheduler/base/check.h"
#include "scheduler/base/status.h"

namespace tandem::ggml_cpu {
namespace {

// Calls fn(pool row, rows) for each run of positions that lies in one block.
template <typename Fn>
void ForEachRun(const KvPool& pool, const step::BlockTable& blocks, uint32_t first, uint32_t count,
                Fn fn) {
  for (uint32_t position = first, end = first + count; position < end;) {
    const uint32_t run =
        std::min(end - position, pool.block_tokens() - position % pool.block_tokens());
    fn(static_cast<size_t>(pool.RowOf(blocks, position)), run);
    position += run;
  }
}

uint8_t* RowData(const ggml_tensor* tensor, size_t row) {
  return static_cast<uint8_t*>(tensor->data) + row * tensor->nb[1];
}

}  // namespace

absl::StatusOr<std::unique_ptr<KvPool>> KvPool::Create(const LlamaShape& shape, uint32_t blocks,
                                                       uint32_t block_tokens, GgmlDevice& device) {
  auto pool = std::make_unique<KvPool>();
  pool->device_ = &device;
  pool->host_ = device.cpu();
  pool->blocks_ = blocks;
  pool->block_tokens_ = block_tokens;
  pool->row_bytes_ = shape.kv_dim() * ggml_type_size(GGML_TYPE_F16);
  pool->context_.reset(
      ggml_init({ggml_tensor_overhead() * 2 * shape.layers, nullptr, /*no_alloc=*/true}));
  const int64_t rows =
      static_cast<int64_t>(blocks) * block_tokens + (device.cpu() ? 0 : kViewPadding);
  RETURN_IF_ERROR(
      device.CheckFree(2 * shape.layers * static_cast<uint64_t>(rows) * pool->row_bytes_,
                       absl::StrCat(blocks, " KV blocks of ", block_tokens, " tokens")));
  for (uint32_t layer = 0; layer < shape.layers; ++layer) {
    pool->keys_.push_back(
        ggml_new_tensor_2d(pool->context_.get(), GGML_TYPE_F16, shape.kv_dim(), rows));
    pool->values_.push_back(
        ggml_new_tensor_2d(pool->context_.get(), GGML_TYPE_F16, shape.kv_dim(), rows));
  }
  pool->buffer_.reset(ggml_backend_alloc_ctx_tensors(pool->context_.get(), device.backend()));
  if (pool->buffer_ == nullptr) {
    return absl::ResourceExhaustedError(
        absl::StrCat("no memory for ", blocks, " KV blocks of ",
                     2 * shape.layers * block_tokens * pool->row_bytes_, " bytes"));
  }
  AdviseHugePages(pool->buffer_.get());
  ggml_backend_buffer_clear(pool->buffer_.get(), 0);
  return pool;
}

absl::Status KvPool::CheckPosition(const step::BlockTable& blocks, uint32_t position) const {
  const size_t index = position / block_tokens_;
  if (index >= blocks.size()) {
    return absl::InvalidArgumentError(absl::StrCat("position ", position, " is past the ",
                                                   blocks.size(), " blocks of ", block_tokens_,
                                                   " tokens of its sequence"));
  }
  if (blocks[index] >= blocks_) {
    return absl::InvalidArgumentError(
        absl::StrCat("block ", blocks[index], " is none of the pool's ", blocks_));
  }
  return absl::OkStatus();
}

absl::Status KvPool::CheckRange(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                                uint32_t count, size_t bytes) const {
  if (layer >= keys_.size()) {
    return absl::InvalidArgumentError(absl::StrCat("layer ", layer, " of ", keys_.size()));
  }
  if (bytes != 2 * row_bytes_ * count) {
    return absl::InvalidArgumentError(
        absl::StrCat(bytes, " bytes for ", count, " KV rows of ", 2 * row_bytes_, " bytes"));
  }
  const uint64_t end = uint64_t{first} + count;
  if (end > uint64_t{blocks.size()} * block_tokens_) {
    return absl::InvalidArgumentError(absl::StrCat("positions ", first, " to ", end, " are past ",
                                                   blocks.size(), " blocks of ", block_tokens_,
                                                   " tokens"));
  }
  for (uint64_t position = first; position < end;
       position += block_tokens_ - position % block_tokens_) {
    RETURN_IF_ERROR(CheckPosition(blocks, static_cast<uint32_t>(position)));
  }
  return absl::OkStatus();
}

absl::Status KvPool::Read(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                          uint32_t count, absl::Span<uint8_t> out) const {
  RETURN_IF_ERROR(CheckRange(layer, blocks, first, count, out.size()));
  uint8_t* to = out.data();
  for (const ggml_tensor* tensor : {keys_[layer], values_[layer]}) {
    ForEachRun(*this, blocks, first, count, [&](size_t row, uint32_t rows) {
      const size_t bytes = rows * row_bytes_;
      if (host_) {
        std::memcpy(to, RowData(tensor, row), bytes);
      } else {
        device_->Download(tensor, to, row * tensor->nb[1], bytes);
      }
      to += bytes;
    });
  }
  return absl::OkStatus();
}

absl::Status KvPool::Write(uint32_t layer, const step::BlockTable& blocks, uint32_t first,
                           uint32_t count, absl::Span<const uint8_t> in) {
  RETURN_IF_ERROR(CheckRange(layer, blocks, first, count, in.size()));
  const uint8_t* from = in.data();
  for (ggml_tensor* tensor : {keys_[layer], values_[layer]}) {
    ForEachRun(*this, blocks, first, count, [&](size_t row, uint32_t rows) {
      const size_t bytes = rows * row_bytes_;
      if (host_) {
        std::memcpy(RowData(tensor, row), from, bytes);
      } else {
        device_->Upload(tensor, from, row * tensor->nb[1], bytes);
      }
      from += bytes;
    });
  }
  if (!host_) device_->Synchronize();  // `in` is the caller's
  return absl::OkStatus();
}

absl::Status KvPool::Copy(absl::Span<const step::KvBook::BlockCopy> copies) {
  for (const auto& copy : copies) {
    if (copy.from >= blocks_ || copy.to >= blocks_) {
      return absl::InvalidArgumentError(
          absl::StrCat("copy of block ", copy.from, " to ", copy.to, " in a pool of ", blocks_));
    }
  }
  if (!host_) return CopyOnDevice(copies);
  const size_t bytes = row_bytes_ * block_tokens_;
  for (const auto& copy : copies) {
    if (copy.from == copy.to) continue;
    for (const auto& tensors : {keys_, values_}) {
      for (const ggml_tensor* tensor : tensors) {
        std::memcpy(RowData(tensor, size_t{copy.to} * block_tokens_),
                    RowData(tensor, size_t{copy.from} * block_tokens_), bytes);
      }
    }
  }
  return absl::OkStatus();
}

// From device memory to device memory: nothing crosses to the host where the device can do it.
absl::Status KvPool::CopyOnDevice(absl::Span<const step::KvBook::BlockCopy> copies) {
  device_->Synchronize();  // the copies are not in the order of the graphs
  const int64_t values = static_cast<int64_t>(row_bytes_ / sizeof(ggml_fp16_t)) * block_tokens_;
  for (const auto& copy : copies) {
    if (copy.from == copy.to) continue;
    const ggml_context_ptr views(
        ggml_init({ggml_tensor_overhead() * 4 * keys_.size(), nullptr, /*no_alloc=*/true}));
    for (const auto& tensors : {keys_, values_}) {
      for (ggml_tensor* tensor : tensors) {
        const auto block = [&](uint32_t number) {
          ggml_tensor* view = ggml_view_1d(views.get(), tensor, values,
                                           size_t{number} * block_tokens_ * tensor->nb[1]);
          TANDEM_CHECK(ggml_backend_view_init(view) == GGML_STATUS_SUCCESS);
          return view;
        };
        ggml_backend_tensor_copy(block(copy.from), block(copy.to));
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace tandem::ggml_cpu
