#include "services/runtime/catalog_files.h"

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <system_error>
#include <vector>

#include "scheduler/base/status.h"
#include "services/runtime/installed.h"
#include "services/runtime/yaml_file.h"

namespace tandem {
namespace {

namespace fs = std::filesystem;

// Chips come first: devices name them.
constexpr const char* kChips = "chips";
constexpr const char* kDevices = "devices";
constexpr const char* kModels = "models";
constexpr const char* kEngines = "engines";

using AddText = absl::Status (model::Catalog::*)(absl::string_view, absl::string_view);

absl::Status CannotRead(const std::string& path, const std::error_code& error) {
  return absl::InvalidArgumentError(absl::StrCat(path, ": ", error.message()));
}

// In order of their names; none when there is no such directory.
absl::StatusOr<std::vector<std::string>> YamlFilesIn(const std::string& directory) {
  std::vector<std::string> files;
  std::error_code error;
  if (!fs::exists(directory, error)) return files;
  fs::directory_iterator entry(directory, error);
  for (; !error && entry != fs::directory_iterator(); entry.increment(error)) {
    if (entry->path().extension() != ".yaml") continue;
    files.push_back(entry->path().string());
    if (files.size() > kMaxCatalogFiles) {
      return absl::InvalidArgumentError(
          absl::StrCat(directory, ": more than ", kMaxCatalogFiles, " files"));
    }
  }
  if (error) return CannotRead(directory, error);
  std::sort(files.begin(), files.end());
  return files;
}

absl::Status AddFiles(const std::string& directory, AddText add, model::Catalog& catalog) {
  ASSIGN_OR_RETURN(const std::vector<std::string> files, YamlFilesIn(directory));
  for (const std::string& file : files) {
    ASSIGN_OR_RETURN(const std::string text, ReadTextFile(file));
    RETURN_IF_ERROR((catalog.*add)(text, file));
  }
  return absl::OkStatus();
}

absl::Status CheckDirectory(const std::string& directory) {
  std::error_code error;
  if (!fs::is_directory(directory, error))
    return absl::NotFoundError(absl::StrCat(directory, ": no such catalog directory"));
  for (const char* kind : {kChips, kDevices, kModels, kEngines}) {
    if (fs::is_directory(fs::path(directory) / kind, error)) return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat(directory, ": holds none of chips/, devices/, models/ and engines/"));
}

}  // namespace

absl::StatusOr<model::Catalog> LoadCatalog(absl::Span<const std::string> directories) {
  model::Catalog catalog;
  for (const std::string& directory : directories) RETURN_IF_ERROR(CheckDirectory(directory));
  for (const std::string& directory : directories)
    RETURN_IF_ERROR(
        AddFiles(absl::StrCat(directory, "/", kChips), &model::Catalog::AddChip, catalog));
  for (const std::string& directory : directories) {
    RETURN_IF_ERROR(
        AddFiles(absl::StrCat(directory, "/", kDevices), &model::Catalog::AddDevice, catalog));
    RETURN_IF_ERROR(
        AddFiles(absl::StrCat(directory, "/", kModels), &model::Catalog::AddModel, catalog));
    RETURN_IF_ERROR(
        AddFiles(absl::StrCat(directory, "/", kEngines), &model::Catalog::AddEngine, catalog));
  }
  return catalog;
}

std::string InstalledCatalog() {
  const char* given = std::getenv("TANDEM_CATALOG");
  if (given != nullptr && *given != '\0') return given;
  return InstalledFolder("catalog");
}

}  // namespace tandem
