#include "scheduler/model/catalog.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

#include <algorithm>
#include <utility>

#include "scheduler/base/status.h"

namespace tandem::model {
namespace {

constexpr size_t kNamesInMessages = 5;

// Levenshtein's: how many letters to insert, drop or change to get from `a` to `b`.
size_t EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j < row.size(); j++) row[j] = j;
  for (size_t i = 1; i <= a.size(); i++) {
    size_t diagonal = std::exchange(row[0], i);
    for (size_t j = 1; j < row.size(); j++) {
      const size_t changed = diagonal + (a[i - 1] == b[j - 1] ? 0 : 1);
      diagonal = std::exchange(row[j], std::min({row[j] + 1, row[j - 1] + 1, changed}));
    }
  }
  return row.back();
}

// "device 'h100x8' is not in the catalog; nearest: h100-x8, h100-x2 (of 23)"
std::string Missing(const char* kind, const std::string& name, std::vector<std::string> names) {
  std::string text = absl::StrCat(kind, " '", name, "' is not in the catalog");
  if (names.empty()) return absl::StrCat(text, ", which holds none");
  const size_t all = names.size();
  std::stable_sort(names.begin(), names.end(), [&](const auto& a, const auto& b) {
    return EditDistance(name, a) < EditDistance(name, b);
  });
  names.resize(std::min(all, kNamesInMessages));
  return absl::StrCat(text, "; nearest: ", absl::StrJoin(names, ", "), " (of ", all, ")");
}

bool BeginsWith(absl::string_view name, absl::string_view prefix) {
  return name.substr(0, prefix.size()) == prefix;
}

// The whole name that `name` is short for, among names that do not hold it itself; `name` where
// there is none. Each of `kinds` is asked for "NAME-..." before any is asked for "NAME...".
absl::StatusOr<std::string> Complete(const char* kind, const std::string& name,
                                     const std::vector<std::vector<std::string>>& kinds) {
  if (name.empty()) return name;
  for (const std::string& prefix : {name + "-", name}) {
    for (const std::vector<std::string>& names : kinds) {
      std::vector<std::string> found;
      for (const std::string& candidate : names) {
        if (candidate == name) return name;
        if (BeginsWith(candidate, prefix)) found.push_back(candidate);
      }
      if (found.size() == 1) return found.front();
      if (found.size() > 1) {
        return absl::InvalidArgumentError(
            absl::StrCat(kind, " '", name, "' may be ", absl::StrJoin(found, ", ")));
      }
    }
  }
  return name;
}

template <typename Table>
std::vector<std::string> Names(const Table& table) {
  std::vector<std::string> names;
  names.reserve(table.size());
  for (const auto& entry : table) names.push_back(entry.first);
  return names;
}

absl::Status Twice(const char* kind, const std::string& name, absl::string_view where,
                   absl::string_view first) {
  return absl::AlreadyExistsError(
      absl::StrCat(where, ": name: ", kind, " '", name, "' is already in ", first));
}

}  // namespace

template <typename Value>
absl::Status Catalog::Add(Table<Value>& table, const char* kind, Value value,
                          absl::string_view where) {
  const std::string name = value.name;
  const auto [entry, added] =
      table.emplace(name, Entry<Value>{std::move(value), std::string(where)});
  return added ? absl::OkStatus() : Twice(kind, name, where, entry->second.where);
}

absl::Status Catalog::AddChip(absl::string_view yaml, absl::string_view where) {
  ASSIGN_OR_RETURN(Chip chip, ReadChip(yaml, where));
  const auto device = devices_.find(chip.name);
  if (device != devices_.end()) return Twice("device", chip.name, where, device->second.where);
  return Add(chips_, "chip", std::move(chip), where);
}

absl::Status Catalog::AddDevice(absl::string_view yaml, absl::string_view where) {
  const auto find = [this](const std::string& name) {
    const auto found = chips_.find(name);
    return found == chips_.end() ? nullptr : &found->second.value;
  };
  const auto near = [this](const std::string& name) { return Missing("chip", name, ChipNames()); };
  ASSIGN_OR_RETURN(Device device, ReadDevice(yaml, where, find, near));
  const auto chip = chips_.find(device.name);
  if (chip != chips_.end()) return Twice("chip", device.name, where, chip->second.where);
  return Add(devices_, "device", std::move(device), where);
}

absl::Status Catalog::AddModel(absl::string_view yaml, absl::string_view where) {
  ASSIGN_OR_RETURN(ModelShape shape, ReadModelShape(yaml, where));
  return Add(models_, "model", std::move(shape), where);
}

absl::Status Catalog::AddEngine(absl::string_view yaml, absl::string_view where) {
  ASSIGN_OR_RETURN(Engine engine, ReadEngine(yaml, where));
  return Add(engines_, "engine", std::move(engine), where);
}

absl::StatusOr<Chip> Catalog::FindChip(const std::string& name) const {
  const auto found = chips_.find(name);
  if (found == chips_.end()) return absl::NotFoundError(Missing("chip", name, ChipNames()));
  return found->second.value;
}

absl::StatusOr<Device> Catalog::FindDevice(const std::string& name) const {
  const auto found = devices_.find(name);
  if (found != devices_.end()) return found->second.value;
  const auto chip = chips_.find(name);
  if (chip != chips_.end()) return SingleChip(chip->second.value);
  std::vector<std::string> names = DeviceNames();
  for (std::string& single : ChipNames()) names.push_back(std::move(single));
  return absl::NotFoundError(Missing("device", name, std::move(names)));
}

absl::StatusOr<ModelShape> Catalog::FindModel(const std::string& name) const {
  const auto found = models_.find(name);
  if (found == models_.end()) return absl::NotFoundError(Missing("model", name, ModelNames()));
  return found->second.value;
}

absl::StatusOr<Engine> Catalog::FindEngine(const std::string& name) const {
  const auto found = engines_.find(name);
  if (found == engines_.end()) return absl::NotFoundError(Missing("engine", name, EngineNames()));
  return found->second.value;
}

absl::StatusOr<Chip> Catalog::ResolveChip(const std::string& name) const {
  ASSIGN_OR_RETURN(const std::string whole, Complete("chip", name, {ChipNames()}));
  return FindChip(whole);
}

absl::StatusOr<Device> Catalog::ResolveDevice(const std::string& name) const {
  if (devices_.contains(name)) return FindDevice(name);
  ASSIGN_OR_RETURN(const std::string whole, Complete("device", name, {ChipNames(), DeviceNames()}));
  return FindDevice(whole);
}

absl::StatusOr<ModelShape> Catalog::ResolveModel(const std::string& name) const {
  ASSIGN_OR_RETURN(const std::string whole, Complete("model", name, {ModelNames()}));
  return FindModel(whole);
}

std::vector<std::string> Catalog::ChipNames() const { return Names(chips_); }
std::vector<std::string> Catalog::DeviceNames() const { return Names(devices_); }
std::vector<std::string> Catalog::ModelNames() const { return Names(models_); }
std::vector<std::string> Catalog::EngineNames() const { return Names(engines_); }

}  // namespace tandem::model
