#include "services/ctl/log_file.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <fstream>
#include <sstream>
#include <utility>

namespace tandem::ctl {
namespace {

int OpenForAppend(const std::string& path) {
  return open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

}  // namespace

absl::StatusOr<LogFile> LogFile::Open(const std::string& path, int64_t max_bytes) {
  const int fd = OpenForAppend(path);
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrCat("cannot open log ", path));
  struct stat info {};
  fstat(fd, &info);
  return LogFile(path, max_bytes, fd, info.st_size);
}

LogFile::LogFile(LogFile&& other) noexcept
    : path_(std::move(other.path_)),
      max_bytes_(other.max_bytes_),
      fd_(std::exchange(other.fd_, -1)),
      size_(other.size_) {}

LogFile::~LogFile() {
  if (fd_ >= 0) close(fd_);
}

void LogFile::Write(absl::string_view text) {
  while (!text.empty()) {
    // Up to the line that passes the bound, so that no line is cut in two.
    size_t piece = text.size();
    if (size_ + static_cast<int64_t>(text.size()) > max_bytes_) {
      const auto room = static_cast<size_t>(std::max<int64_t>(max_bytes_ - size_, 0));
      const size_t line_end = text.find('\n', std::min(room, text.size() - 1));
      if (line_end != absl::string_view::npos) piece = line_end + 1;
    }
    const ssize_t wrote = write(fd_, text.data(), piece);
    if (wrote < 0 && errno == EINTR) continue;
    if (wrote <= 0) return;
    size_ += wrote;
    if (size_ > max_bytes_ && text[static_cast<size_t>(wrote) - 1] == '\n') Rotate();
    text.remove_prefix(static_cast<size_t>(wrote));
  }
}

void LogFile::Rotate() {
  std::rename(path_.c_str(), absl::StrCat(path_, ".1").c_str());
  const int fresh = OpenForAppend(path_);
  if (fresh < 0) return;  // goes on in the old file
  close(fd_);
  fd_ = fresh;
  size_ = 0;
}

std::vector<std::string> LastLines(const std::string& path, size_t count) {
  constexpr std::streamoff kTail = 64 << 10;
  std::ifstream file(path, std::ios::ate);
  if (!file) return {};
  const std::streamoff size = file.tellg();
  file.seekg(std::max<std::streamoff>(size - kTail, 0));
  std::stringstream text;
  text << file.rdbuf();
  std::vector<std::string> lines = absl::StrSplit(text.str(), '\n', absl::SkipEmpty());
  if (lines.size() > count)
    lines.erase(lines.begin(), lines.end() - static_cast<std::ptrdiff_t>(count));
  return lines;
}

}  // namespace tandem::ctl
