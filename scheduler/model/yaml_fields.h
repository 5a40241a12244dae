#pragma once

// Strict reading of the catalog's YAML: an unknown key, a missing one or a wrong type is an error
// that names line and key.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <memory>
#include <set>
#include <string>
#include <vector>

namespace YAML {
class Node;
}

namespace tandem::model {

// A number and where it comes from.
struct Figure {
  double value = 0;
  std::string source;
};

// Reads one mapping. The first error sticks; Finish reports it, or a key that nobody asked for.
class YamlFields {
 public:
  // `where` names the file in messages. Text that is no mapping is the first error.
  YamlFields(absl::string_view yaml, absl::string_view where);
  YamlFields(YamlFields&&) noexcept;
  ~YamlFields();

  std::string Text(const std::string& key);
  std::string TextOr(const std::string& key, absl::string_view fallback);
  // An integer in [min, max]; `fallback` stands for an absent key, when given.
  uint64_t Integer(const std::string& key, uint64_t min, uint64_t max,
                   const uint64_t* fallback = nullptr);
  // {value: 3.35e12, source: "..."}; value in [min, max], source not empty.
  Figure Sourced(const std::string& key, double min, double max);

  // The entries of a list of mappings, each to be read and finished by the caller; none when the
  // key is absent.
  std::vector<YamlFields> List(const std::string& key);

  absl::Status Finish();

 private:
  YamlFields(const YAML::Node& node, std::string where);
  void Fail(int line, const std::string& key, const std::string& what);

  std::unique_ptr<YAML::Node> root_;
  std::string where_;
  std::set<std::string> known_;
  absl::Status status_;
};

}  // namespace tandem::model
