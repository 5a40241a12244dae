#pragma once

// The file that a command writes its result to, or stdout.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdio>
#include <memory>
#include <string>

namespace tandem::ctl {

// What a file held before stays until Clear: a command that fails first has not destroyed it.
class OutFile {
 public:
  // "-" is stdout. kInvalidArgument: it cannot be written, and why; so do the others.
  static absl::StatusOr<OutFile> Open(const std::string& path);

  // Before the first Write.
  absl::Status Clear();
  absl::Status Write(absl::string_view text);
  absl::Status Close();
  const std::string& path() const { return path_; }
  bool is_stdout() const { return path_ == "-"; }

 private:
  using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;
  OutFile(std::string path, File file) : path_(std::move(path)), file_(std::move(file)) {}

  std::string path_;
  File file_;
};

}  // namespace tandem::ctl
