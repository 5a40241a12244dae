#include "scheduler/model/yaml_reader.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <yaml-cpp/yaml.h>

#include <utility>

namespace tandem {
namespace {

// Where a node stands; yaml-cpp counts lines from zero.
std::string Place(const std::string& file, const YAML::Mark& mark) {
  return mark.line < 0 ? file : absl::StrCat(file, ":", mark.line + 1);
}

const char* KindOf(const YAML::Node& node) {
  switch (node.Type()) {
    case YAML::NodeType::Scalar:
      return "a scalar";
    case YAML::NodeType::Sequence:
      return "a list";
    case YAML::NodeType::Map:
      return "a mapping";
    default:
      return "nothing";
  }
}

}  // namespace

YamlReader::YamlReader(const YAML::Node& node, std::string file, std::string prefix)
    : node_(std::make_shared<YAML::Node>(node)),
      found_(std::make_shared<YAML::Node>()),
      key_(std::make_shared<YAML::Node>()),
      file_(std::move(file)),
      prefix_(std::move(prefix)) {
  if (node.IsNull()) return;
  if (!node.IsMap()) {
    Fail(node, "", absl::StrCat("expected a mapping, found ", KindOf(node)));
    return;
  }
  std::set<std::string> seen;
  for (const auto& entry : node) {
    if (!entry.first.IsScalar()) {
      Fail(entry.first, "", absl::StrCat("a key is ", KindOf(entry.first), ", expected a scalar"));
    } else if (!seen.insert(entry.first.Scalar()).second) {
      Fail(entry.first, entry.first.Scalar(), "stands there twice");
    }
  }
}

void YamlReader::Fail(const YAML::Node& node, const std::string& key, const std::string& what) {
  if (!status_.ok()) return;
  status_ = absl::InvalidArgumentError(
      absl::StrCat(Place(file_, node.Mark()), ": ", prefix_, key, key.empty() ? "" : ": ", what));
}

YamlReader YamlReader::Below(const YAML::Node& node, const std::string& key) const {
  return YamlReader(node, file_, absl::StrCat(prefix_, key, "."));
}

bool YamlReader::Has(const std::string& key) const {
  if (!node_->IsMap()) return false;
  for (const auto& entry : *node_) {
    if (entry.first.IsScalar() && entry.first.Scalar() == key) return true;
  }
  return false;
}

bool YamlReader::Needs(const std::string& key) {
  if (Has(key)) return true;
  Fail(*node_, key, "is missing");
  return false;
}

void YamlReader::Refuse(const std::string& key, const std::string& what) {
  Fail(Find(key) == nullptr ? *node_ : *key_, key, what);
}

const YAML::Node* YamlReader::Find(const std::string& key) {
  known_.insert(key);
  if (!status_.ok() || !node_->IsMap()) return nullptr;
  for (const auto& entry : *node_) {
    if (entry.first.IsScalar() && entry.first.Scalar() == key) {
      key_->reset(entry.first);
      found_->reset(entry.second);
      return found_.get();
    }
  }
  return nullptr;
}

const YAML::Node* YamlReader::FindScalar(const std::string& key, const char* wanted) {
  const YAML::Node* found = Find(key);
  if (found == nullptr || found->IsScalar()) return found;
  Fail(*key_, key, absl::StrCat("expected ", wanted, ", found ", KindOf(*found)));
  return nullptr;
}

void YamlReader::Get(const std::string& key, std::string& value) {
  if (const YAML::Node* found = FindScalar(key, "text")) value = found->Scalar();
}

void YamlReader::Get(const std::string& key, bool& value) {
  const YAML::Node* found = FindScalar(key, "true or false");
  if (found == nullptr) return;
  if (found->Scalar() != "true" && found->Scalar() != "false") {
    Fail(*key_, key, absl::StrCat("'", found->Scalar(), "' is neither true nor false"));
    return;
  }
  value = found->Scalar() == "true";
}

void YamlReader::Get(const std::string& key, double& value, double min, double max) {
  const YAML::Node* found = FindScalar(key, "a number");
  if (found == nullptr) return;
  double number = 0;
  if (!absl::SimpleAtod(found->Scalar(), &number)) {
    Fail(*key_, key, absl::StrCat("'", found->Scalar(), "' is no number"));
  } else if (!(number >= min && number <= max)) {  // also catches NaN
    Fail(*key_, key, absl::StrCat(found->Scalar(), " is not in [", min, ", ", max, "]"));
  } else {
    value = number;
  }
}

bool YamlReader::GetInteger(const std::string& key, int64_t& value, int64_t min, int64_t max) {
  const YAML::Node* found = FindScalar(key, "an integer");
  if (found == nullptr) return false;
  int64_t number = 0;
  if (!absl::SimpleAtoi(found->Scalar(), &number)) {
    Fail(*key_, key, absl::StrCat("'", found->Scalar(), "' is no integer"));
    return false;
  }
  if (number < min || number > max) {
    Fail(*key_, key, absl::StrCat(number, " is not in [", min, ", ", max, "]"));
    return false;
  }
  value = number;
  return true;
}

void YamlReader::Get(const std::string& key, std::vector<std::string>& value) {
  const YAML::Node* found = Find(key);
  if (found == nullptr) return;
  if (!found->IsSequence()) {
    Fail(*key_, key, absl::StrCat("expected a list, found ", KindOf(*found)));
    return;
  }
  std::vector<std::string> entries;
  for (const YAML::Node& entry : *found) {
    if (!entry.IsScalar()) {
      Fail(entry, key, absl::StrCat("expected a list of scalars, found ", KindOf(entry), " in it"));
      return;
    }
    entries.push_back(entry.Scalar());
  }
  value = std::move(entries);
}

void YamlReader::GetMapping(const std::string& key,
                            const std::function<absl::Status(const YAML::Node&)>& read) {
  const YAML::Node* found = Find(key);
  if (found == nullptr) return;
  if (!found->IsMap()) {
    Fail(*key_, key, absl::StrCat("expected a mapping, found ", KindOf(*found)));
    return;
  }
  const YAML::Node node = *found;
  status_.Update(read(node));
}

void YamlReader::GetAny(const std::string& key,
                        const std::function<absl::Status(const YAML::Node&)>& read) {
  const YAML::Node* found = Find(key);
  if (found == nullptr) return;
  const YAML::Node node = *found;
  status_.Update(read(node));
}

void YamlReader::GetList(const std::string& key,
                         const std::function<absl::Status(const YAML::Node&)>& read) {
  const YAML::Node* found = Find(key);
  if (found == nullptr) return;
  if (!found->IsSequence()) {
    Fail(*key_, key, absl::StrCat("expected a list, found ", KindOf(*found)));
    return;
  }
  const YAML::Node list = *found;
  for (const YAML::Node& entry : list) status_.Update(read(entry));
}

absl::Status YamlReader::Finish() {
  if (!node_->IsMap()) return status_;
  for (const auto& entry : *node_) {
    if (!status_.ok()) break;
    if (!known_.contains(entry.first.Scalar()))
      Fail(entry.first, entry.first.Scalar(), "unknown key");
  }
  return status_;
}

absl::StatusOr<YAML::Node> ParseYaml(absl::string_view text, const std::string& file) {
  try {
    return YAML::Load(std::string(text));
  } catch (const YAML::ParserException& error) {
    return absl::InvalidArgumentError(absl::StrCat(Place(file, error.mark), ": ", error.msg));
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", error.what()));
  }
}

}  // namespace tandem
