#pragma once

// Strict reading of YAML, a daemon's configuration and the catalog's files alike: unknown keys,
// wrong types and numbers out of range are errors that name file, line and key.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace YAML {
class Node;
}

namespace tandem {

// Reads one mapping. Each Get leaves `value` alone when the key is absent. Finish reports the first
// error, or a key that no Get asked for, or that stands there twice: "gateway.yaml:3: port: 70000
// is not in [0, 65535]". An empty file is a mapping without keys.
//
//   YamlReader reader(node, "gateway.yaml");
//   reader.Get("port", config.port, 0, 65535);
//   RETURN_IF_ERROR(reader.Finish());
class YamlReader {
 public:
  // `prefix` stands before each key in messages: "memory_bytes." in a mapping below that key.
  YamlReader(const YAML::Node& node, std::string file, std::string prefix = "");

  void Get(const std::string& key, std::string& value);
  void Get(const std::string& key, bool& value);
  void Get(const std::string& key, double& value, double min, double max);
  void Get(const std::string& key, std::vector<std::string>& value);  // a list of scalars
  // Any integer that holds [min, max].
  template <typename Int>
  void Get(const std::string& key, Int& value, int64_t min, int64_t max) {
    int64_t wide = static_cast<int64_t>(value);
    if (GetInteger(key, wide, min, max)) value = static_cast<Int>(wide);
  }
  // A reader of a mapping found below `key`: same file, the key before its own keys in messages.
  YamlReader Below(const YAML::Node& node, const std::string& key) const;
  // Calls `read` for a nested mapping, or for each entry of a list of mappings.
  void GetMapping(const std::string& key,
                  const std::function<absl::Status(const YAML::Node&)>& read);
  void GetList(const std::string& key, const std::function<absl::Status(const YAML::Node&)>& read);
  // Calls `read` for the key's value, of whatever kind, unless an error came first.
  void GetAny(const std::string& key, const std::function<absl::Status(const YAML::Node&)>& read);
  bool Has(const std::string& key) const;

  // As Get; but the key must be there.
  template <typename... Args>
  void Require(const std::string& key, Args&&... args) {
    if (Needs(key)) Get(key, std::forward<Args>(args)...);
  }
  // Fails when the key is absent, and says whether it is there.
  bool Needs(const std::string& key);
  // An error of the caller's own about `key`'s value; the first error of all wins.
  void Refuse(const std::string& key, const std::string& what);

  absl::Status Finish();

 private:
  bool GetInteger(const std::string& key, int64_t& value, int64_t min, int64_t max);
  // The key's scalar, or its value of any kind; nullptr when it is absent or an error came first.
  // Valid until the next.
  const YAML::Node* Find(const std::string& key);
  const YAML::Node* FindScalar(const std::string& key, const char* wanted);
  void Fail(const YAML::Node& node, const std::string& key, const std::string& what);

  std::shared_ptr<YAML::Node> node_, found_, key_;
  std::string file_, prefix_;
  std::set<std::string> known_;
  absl::Status status_;
};

// kInvalidArgument: not YAML, with the line. `file` names it in messages.
absl::StatusOr<YAML::Node> ParseYaml(absl::string_view text, const std::string& file);

}  // namespace tandem
