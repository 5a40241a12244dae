#include "services/runtime/yaml_file.h"

#include <absl/strings/str_cat.h>
#include <yaml-cpp/yaml.h>

#include <fstream>

#include "scheduler/base/status.h"
#include "scheduler/model/yaml_reader.h"

namespace tandem {

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  std::ifstream in(path);
  if (!in) return absl::NotFoundError(absl::StrCat(path, ": cannot be opened"));
  std::string text(kMaxYamlFileBytes + 1, '\0');
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.bad()) return absl::InvalidArgumentError(absl::StrCat(path, ": cannot be read"));
  text.resize(static_cast<size_t>(in.gcount()));
  if (text.size() > kMaxYamlFileBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": longer than ", kMaxYamlFileBytes, " bytes"));
  }
  return text;
}

absl::StatusOr<YAML::Node> LoadYamlFile(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadTextFile(path));
  return ParseYaml(text, path);
}

}  // namespace tandem
