#pragma once

// Rows in the memory of a device that the host cannot address.

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>

#include "ggml-cpp.h"
#include "workers/backend/ggml/ggml_device.h"
#include "workers/backend/stage_backend.h"

namespace tandem::ggml_cpu {

// Graphs name it by its address, so each has an id of its own that never comes back.
class DeviceRows final : public Buffer {
 public:
  // Zeros. kResourceExhausted: the device has no memory for them.
  static absl::StatusOr<std::shared_ptr<DeviceRows>> Create(std::shared_ptr<GgmlDevice> device,
                                                            uint32_t rows, uint32_t hidden);

  float* host() override { return nullptr; }
  size_t bytes() const override { return bytes_; }
  void Read(size_t first, absl::Span<float> out) const override;
  void Write(size_t first, absl::Span<const float> in) override;

  uint64_t id() const { return id_; }
  // The first `rows` rows, in a graph.
  ggml_tensor* View(ggml_context* context, uint32_t rows) const;
  // Makes `output` [hidden, rows] of a graph be written here.
  void Take(ggml_tensor* output) const;

 private:
  DeviceRows() = default;
  std::shared_ptr<GgmlDevice> device_;
  ggml_context_ptr context_;
  ggml_backend_buffer_ptr buffer_;
  ggml_tensor* tensor_ = nullptr;  // [hidden, rows] F32
  size_t bytes_ = 0;
  uint64_t id_ = 0;
};

}  // namespace tandem::ggml_cpu
