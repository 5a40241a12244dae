#include "workers/backend/ggml/device_rows.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <atomic>
#include <utility>

#include "scheduler/base/check.h"

namespace tandem::ggml_cpu {

absl::StatusOr<std::shared_ptr<DeviceRows>> DeviceRows::Create(std::shared_ptr<GgmlDevice> device,
                                                               uint32_t rows, uint32_t hidden) {
  static std::atomic<uint64_t> last_id = 0;
  std::shared_ptr<DeviceRows> made(new DeviceRows());
  made->device_ = std::move(device);
  made->id_ = ++last_id;
  made->bytes_ = size_t{rows} * hidden * sizeof(float);
  made->context_.reset(ggml_init({ggml_tensor_overhead(), nullptr, /*no_alloc=*/true}));
  made->tensor_ =
      ggml_new_tensor_2d(made->context_.get(), GGML_TYPE_F32, hidden, std::max(rows, 1u));
  made->buffer_.reset(
      ggml_backend_alloc_ctx_tensors(made->context_.get(), made->device_->backend()));
  if (made->buffer_ == nullptr) {
    return absl::ResourceExhaustedError(absl::StrCat("no memory for ", rows, " rows of ",
                                                     made->bytes_, " bytes on the ",
                                                     made->device_->kind()));
  }
  ggml_backend_buffer_clear(made->buffer_.get(), 0);
  return made;
}

void DeviceRows::Read(size_t first, absl::Span<float> out) const {
  TANDEM_CHECK((first + out.size()) * sizeof(float) <= bytes_);
  if (out.empty()) return;
  device_->Download(tensor_, out.data(), first * sizeof(float), out.size() * sizeof(float));
}

void DeviceRows::Write(size_t first, absl::Span<const float> in) {
  TANDEM_CHECK((first + in.size()) * sizeof(float) <= bytes_);
  if (in.empty()) return;
  device_->Upload(tensor_, in.data(), first * sizeof(float), in.size() * sizeof(float));
  device_->Synchronize();  // `in` is the caller's
}

ggml_tensor* DeviceRows::View(ggml_context* context, uint32_t rows) const {
  return ggml_view_2d(context, tensor_, tensor_->ne[0], rows, tensor_->nb[1], 0);
}

void DeviceRows::Take(ggml_tensor* output) const {
  TANDEM_CHECK(ggml_nbytes(output) <= bytes_);
  const ggml_status placed =
      ggml_backend_tensor_alloc(buffer_.get(), output, ggml_backend_buffer_get_base(buffer_.get()));
  TANDEM_CHECK(placed == GGML_STATUS_SUCCESS);
}

}  // namespace tandem::ggml_cpu
