#pragma once

// What the fuzz targets share: taking an input apart, and a file that lies in memory. A target
// states what must hold with TANDEM_CHECK, which aborts with the place and the condition.

#include <absl/status/status.h>
#include <absl/strings/string_view.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <string>

#include "scheduler/base/check.h"

namespace tandem::fuzz {

// Reads an input from its front; what is missing is zero or empty.
class FuzzInput {
 public:
  FuzzInput(const uint8_t* data, size_t size) : rest_(reinterpret_cast<const char*>(data), size) {}

  bool empty() const { return rest_.empty(); }
  uint8_t Byte() { return empty() ? 0 : static_cast<uint8_t>(Take(1)[0]); }
  absl::string_view Take(size_t bytes) {
    const absl::string_view taken = rest_.substr(0, std::min(bytes, rest_.size()));
    rest_.remove_prefix(taken.size());
    return taken;
  }
  absl::string_view Rest() { return Take(rest_.size()); }

 private:
  absl::string_view rest_;
};

// A file of these bytes for readers that want a path.
class MemoryFile {
 public:
  explicit MemoryFile(absl::string_view bytes) : file_(memfd_create("fuzz", MFD_CLOEXEC)) {
    TANDEM_CHECK(file_ >= 0);
    TANDEM_CHECK(write(file_, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
    path_ = "/proc/self/fd/" + std::to_string(file_);
  }
  ~MemoryFile() { close(file_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  const std::string& path() const { return path_; }

 private:
  int file_;
  std::string path_;
};

// Reads a protobuf message; false when the bytes are none, which is for gRPC to answer.
template <typename Message>
bool Parse(absl::string_view bytes, Message& message) {
  return message.ParseFromArray(bytes.data(), static_cast<int>(bytes.size()));
}

// A refusal says what is wrong.
inline void CheckRefusal(const absl::Status& status) {
  TANDEM_CHECK(!status.ok());
  TANDEM_CHECK(!status.message().empty());
}

}  // namespace tandem::fuzz
