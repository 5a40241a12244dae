#include "services/runtime/installed.h"

#include <absl/strings/str_cat.h>

#include <filesystem>
#include <system_error>

namespace tandem {

std::string InstalledFolder(absl::string_view name) {
  std::error_code error;
  const auto executable = std::filesystem::read_symlink("/proc/self/exe", error);
  return (executable.parent_path().parent_path() / absl::StrCat("share/tandem/", name)).string();
}

}  // namespace tandem
