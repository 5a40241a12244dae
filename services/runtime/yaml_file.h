#pragma once

// YAML files from disk. What is in them is read with scheduler/model/yaml_reader.h.

#include <absl/status/statusor.h>

#include <string>

namespace YAML {
class Node;
}

namespace tandem {

// A whole file as text. kNotFound: it cannot be opened; kInvalidArgument: longer than
// kMaxYamlFileBytes, or no file to read.
absl::StatusOr<std::string> ReadTextFile(const std::string& path);
inline constexpr size_t kMaxYamlFileBytes = size_t{1} << 20;

// As ReadTextFile, and kInvalidArgument: not YAML, with the line.
absl::StatusOr<YAML::Node> LoadYamlFile(const std::string& path);

}  // namespace tandem
