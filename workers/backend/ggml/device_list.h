#pragma once

// The devices that ggml's registry finds, and their names on our command line.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>
#include <vector>

#include "ggml-backend.h"

namespace tandem::ggml_cpu {

// One device. Its name is "cpu", or the kind with the device's number among those of its kind.
struct FoundDevice {
  std::string name;         // "cpu", "cuda:0"
  std::string ggml_name;    // "CPU", "CUDA0"
  std::string type;         // "cpu", "gpu", "igpu", "accel"
  std::string description;  // "NVIDIA H100 80GB HBM3"
  uint64_t memory_free = 0, memory_total = 0;
  ggml_backend_dev_t device = nullptr;
};

// ggml prints what it allocates; only what is wrong belongs into a worker's log. Process-wide, as
// ggml's logger is.
void QuietLog();

// The registry's name of a device's maker, in lower case: "cpu", "cuda", "vulkan", "rpc".
std::string DeviceKind(ggml_backend_dev_t device);

// All of them, the CPU first, then by kind and number. Asks each for its memory.
std::vector<FoundDevice> ListDevices();

// "cpu", "cuda:1", "cuda" (the first) or ggml's own "CUDA1"; case does not matter. kNotFound lists
// what there is.
absl::StatusOr<FoundDevice> FindDevice(absl::string_view name);

// What `tandem-worker --device list` prints: a line a device.
std::string DevicesText(const std::vector<FoundDevice>& devices);

}  // namespace tandem::ggml_cpu
