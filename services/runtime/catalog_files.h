#pragma once

// The catalog of chips, devices, models and engines, read from directories.

#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <string>

#include "scheduler/model/catalog.h"

namespace tandem {

// Files that one directory may hold.
inline constexpr size_t kMaxCatalogFiles = 10'000;

// Reads DIR/chips/*.yaml, and likewise devices, models and engines, of each directory, the user's
// first and then the installed one; any of the four may be absent, not all. A name may stand in
// one file of all of them only. kNotFound: no such directory; kInvalidArgument and kAlreadyExists
// name file, line and key.
absl::StatusOr<model::Catalog> LoadCatalog(absl::Span<const std::string> directories);

// Where the product's own files lie: $TANDEM_CATALOG, else ../share/tandem/catalog beside the
// directory of this executable, which holds for an installation and for a build tree alike.
std::string InstalledCatalog();

}  // namespace tandem
