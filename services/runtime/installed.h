#pragma once

#include <absl/strings/string_view.h>

#include <string>

namespace tandem {

// Where the product's own files of one kind lie: ../share/tandem/NAME beside the directory of this
// executable, which holds for an installation and for a build tree alike.
std::string InstalledFolder(absl::string_view name);

}  // namespace tandem
