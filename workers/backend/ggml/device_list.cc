#include "workers/backend/ggml/device_list.h"

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <cstdio>
#include <map>

namespace tandem::ggml_cpu {
namespace {

constexpr char kCpu[] = "cpu";

std::string TypeName(enum ggml_backend_dev_type type) {
  switch (type) {
    case GGML_BACKEND_DEVICE_TYPE_CPU:
      return kCpu;
    case GGML_BACKEND_DEVICE_TYPE_GPU:
      return "gpu";
    case GGML_BACKEND_DEVICE_TYPE_IGPU:
      return "igpu";
    case GGML_BACKEND_DEVICE_TYPE_ACCEL:
      return "accel";
    default:
      return "other";
  }
}

}  // namespace

void QuietLog() {
  static const bool once = [] {
    ggml_log_set(
        [](ggml_log_level level, const char* text, void*) {
          if (level == GGML_LOG_LEVEL_WARN || level == GGML_LOG_LEVEL_ERROR)
            std::fputs(text, stderr);
        },
        nullptr);
    return true;
  }();
  static_cast<void>(once);
}

std::string DeviceKind(ggml_backend_dev_t device) {
  return absl::AsciiStrToLower(ggml_backend_reg_name(ggml_backend_dev_backend_reg(device)));
}

std::vector<FoundDevice> ListDevices() {
  QuietLog();
  std::vector<FoundDevice> found;
  std::map<std::string, int> of_kind;
  for (size_t i = 0; i < ggml_backend_dev_count(); ++i) {
    ggml_backend_dev_t device = ggml_backend_dev_get(i);
    const std::string kind = DeviceKind(device);
    const int number = of_kind[kind]++;
    const bool cpu = ggml_backend_dev_type(device) == GGML_BACKEND_DEVICE_TYPE_CPU;
    size_t free = 0, total = 0;
    ggml_backend_dev_memory(device, &free, &total);
    found.push_back({cpu ? kCpu : absl::StrCat(kind, ":", number), ggml_backend_dev_name(device),
                     TypeName(ggml_backend_dev_type(device)), ggml_backend_dev_description(device),
                     free, total, device});
  }
  std::stable_sort(found.begin(), found.end(), [](const FoundDevice& a, const FoundDevice& b) {
    return a.name == kCpu && b.name != kCpu;
  });
  return found;
}

absl::StatusOr<FoundDevice> FindDevice(absl::string_view name) {
  std::vector<FoundDevice> devices = ListDevices();
  for (FoundDevice& device : devices) {
    if (absl::EqualsIgnoreCase(device.name, name) ||
        absl::EqualsIgnoreCase(device.ggml_name, name) ||
        absl::EqualsIgnoreCase(device.name, absl::StrCat(name, ":0"))) {
      return std::move(device);
    }
  }
  const std::string there = absl::StrJoin(
      devices, ", ", [](std::string* out, const FoundDevice& d) { absl::StrAppend(out, d.name); });
  return absl::NotFoundError(absl::StrCat("device: ggml has no '", name,
                                          "' on this machine; there is: ", there,
                                          " (devices of the catalog are for --backend emulated)"));
}

std::string DevicesText(const std::vector<FoundDevice>& devices) {
  std::string text = absl::StrFormat("%-12s %-6s %12s %12s  %s\n", "device", "type", "free bytes",
                                     "total bytes", "description");
  for (const FoundDevice& device : devices) {
    text += absl::StrFormat("%-12s %-6s %12u %12u  %s\n", device.name, device.type,
                            device.memory_free, device.memory_total, device.description);
  }
  return text;
}

}  // namespace tandem::ggml_cpu
