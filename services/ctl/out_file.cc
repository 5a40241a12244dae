#include "services/ctl/out_file.h"

#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace tandem::ctl {
namespace {

absl::Status Failed(const std::string& path) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", std::strerror(errno)));
}

}  // namespace

absl::StatusOr<OutFile> OutFile::Open(const std::string& path) {
  if (path == "-") return OutFile(path, File(stdout, [](std::FILE*) { return 0; }));
  File file(std::fopen(path.c_str(), "a"), &std::fclose);
  if (file == nullptr) return Failed(path);
  return OutFile(path, std::move(file));
}

absl::Status OutFile::Clear() {
  // EINVAL: a pipe or a device, which keeps nothing.
  if (is_stdout() || ftruncate(fileno(file_.get()), 0) == 0 || errno == EINVAL)
    return absl::OkStatus();
  return Failed(path_);
}

absl::Status OutFile::Write(absl::string_view text) {
  const size_t written = std::fwrite(text.data(), 1, text.size(), file_.get());
  return written == text.size() ? absl::OkStatus() : Failed(path_);
}

absl::Status OutFile::Close() {
  const bool flushed = std::fflush(file_.get()) == 0;
  return flushed ? absl::OkStatus() : Failed(path_);
}

}  // namespace tandem::ctl
