#include "scheduler/model/yaml_fields.h"

#include <absl/strings/str_cat.h>
#include <yaml-cpp/yaml.h>

#include <cmath>

namespace tandem::model {
namespace {

// A number as text holds it; false: it is none. yaml-cpp throws, this file's callers do not.
bool ReadDouble(const YAML::Node& node, double& value) {
  try {
    value = node.as<double>();
    return std::isfinite(value);
  } catch (const YAML::Exception&) {
    return false;
  }
}

}  // namespace

YamlFields::YamlFields(absl::string_view yaml, absl::string_view where)
    : root_(std::make_unique<YAML::Node>()), where_(where) {
  try {
    *root_ = YAML::Load(std::string(yaml));
    if (!root_->IsMap())
      status_ = absl::InvalidArgumentError(absl::StrCat(where_, ": a mapping is expected"));
  } catch (const YAML::Exception& error) {
    status_ =
        absl::InvalidArgumentError(absl::StrCat(where_, ":", error.mark.line + 1, ": ", error.msg));
  }
}

YamlFields::YamlFields(const YAML::Node& node, std::string where)
    : root_(std::make_unique<YAML::Node>(node)), where_(std::move(where)) {
  if (!root_->IsMap()) {
    status_ = absl::InvalidArgumentError(
        absl::StrCat(where_, ":", root_->Mark().line + 1, ": a mapping is expected"));
  }
}

YamlFields::YamlFields(YamlFields&&) noexcept = default;

YamlFields::~YamlFields() = default;

void YamlFields::Fail(int line, const std::string& key, const std::string& what) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(absl::StrCat(where_, ":", line + 1, ": ", key, ": ", what));
}

std::string YamlFields::Text(const std::string& key) {
  if (!status_.ok()) return "";
  known_.insert(key);
  const YAML::Node node = (*root_)[key];
  if (node && node.IsScalar() && !node.Scalar().empty()) return node.Scalar();
  Fail(node ? node.Mark().line : 0, key, "text is expected");
  return "";
}

std::string YamlFields::TextOr(const std::string& key, absl::string_view fallback) {
  if (status_.ok() && !(*root_)[key]) {
    known_.insert(key);
    return std::string(fallback);
  }
  return Text(key);
}

std::vector<YamlFields> YamlFields::List(const std::string& key) {
  std::vector<YamlFields> entries;
  if (!status_.ok()) return entries;
  known_.insert(key);
  const YAML::Node node = (*root_)[key];
  if (!node) return entries;
  if (!node.IsSequence()) Fail(node.Mark().line, key, "a list is expected");
  if (status_.ok()) {
    for (const auto& entry : node) entries.push_back(YamlFields(entry, where_));
  }
  return entries;
}

uint64_t YamlFields::Integer(const std::string& key, uint64_t min, uint64_t max,
                             const uint64_t* fallback) {
  if (!status_.ok()) return min;
  known_.insert(key);
  const YAML::Node node = (*root_)[key];
  if (!node && fallback != nullptr) return *fallback;
  double value = 0;
  if (node && node.IsScalar() && ReadDouble(node, value) && value == std::floor(value) &&
      value >= min && value <= max) {
    return static_cast<uint64_t>(value);
  }
  Fail(node ? node.Mark().line : 0, key,
       absl::StrCat("a whole number from ", min, " to ", max, " is expected"));
  return min;
}

Figure YamlFields::Sourced(const std::string& key, double min, double max) {
  if (!status_.ok()) return {};
  known_.insert(key);
  const YAML::Node node = (*root_)[key];
  Figure figure;
  const bool form = node && node.IsMap() && node.size() == 2 && node["value"] && node["source"];
  if (form && ReadDouble(node["value"], figure.value) && figure.value >= min &&
      figure.value <= max && node["source"].IsScalar() && !node["source"].Scalar().empty()) {
    figure.source = node["source"].Scalar();
    return figure;
  }
  Fail(node ? node.Mark().line : 0, key,
       absl::StrCat("{value, source} is expected, the value a number from ", min, " to ", max));
  return {};
}

absl::Status YamlFields::Finish() {
  if (!status_.ok()) return status_;
  for (const auto& entry : *root_) {
    if (!known_.contains(entry.first.Scalar()))
      Fail(entry.first.Mark().line, entry.first.Scalar(), "unknown key");
  }
  return status_;
}

}  // namespace tandem::model
