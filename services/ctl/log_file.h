#pragma once

// The log file of one daemon, bounded in size.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tandem::ctl {

// Appends what a process writes. At `max_bytes` the file becomes PATH.1, which replaces an older
// one: at most two files, so at most about 2 x max_bytes on disk. One thread.
class LogFile {
 public:
  static constexpr int64_t kMaxBytes = 16 << 20;

  static absl::StatusOr<LogFile> Open(const std::string& path, int64_t max_bytes = kMaxBytes);
  LogFile(LogFile&& other) noexcept;
  LogFile& operator=(LogFile&&) = delete;
  ~LogFile();

  // Rotates only where a line has ended. A full disk loses the text, not the process.
  void Write(absl::string_view text);

 private:
  LogFile(std::string path, int64_t max_bytes, int fd, int64_t size)
      : path_(std::move(path)), max_bytes_(max_bytes), fd_(fd), size_(size) {}
  void Rotate();

  std::string path_;
  int64_t max_bytes_;
  int fd_;
  int64_t size_;
};

// The last lines of a file, oldest first; empty when it cannot be read.
std::vector<std::string> LastLines(const std::string& path, size_t count);

}  // namespace tandem::ctl
