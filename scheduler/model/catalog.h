#pragma once

// Every chip, device, model and engine that may be named. Filled from text;
// services/runtime/catalog_files.h reads the directories.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <map>
#include <string>
#include <vector>

#include "scheduler/model/chip.h"
#include "scheduler/model/device.h"
#include "scheduler/model/engine.h"
#include "scheduler/model/model_shape.h"

namespace tandem::model {

class Catalog {
 public:
  // Each adds what one YAML text describes; `where` names its file in messages. kInvalidArgument
  // names file, line and key; kAlreadyExists names both files: nothing overrides anything. A device
  // needs its chip, so chips come first.
  absl::Status AddChip(absl::string_view yaml, absl::string_view where);
  absl::Status AddDevice(absl::string_view yaml, absl::string_view where);
  absl::Status AddModel(absl::string_view yaml, absl::string_view where);
  absl::Status AddEngine(absl::string_view yaml, absl::string_view where);

  // kNotFound lists the names that look most like this one. A chip's name is that of a device too.
  absl::StatusOr<Chip> FindChip(const std::string& name) const;
  absl::StatusOr<Device> FindDevice(const std::string& name) const;
  absl::StatusOr<ModelShape> FindModel(const std::string& name) const;
  absl::StatusOr<Engine> FindEngine(const std::string& name) const;

  // As the above, for names as people type them: itself, else the only name that begins with it
  // and a dash ("h100": h100-sxm), else the only one that begins with it. Chips come before
  // devices, so that "h100" is not h100-x8. kInvalidArgument lists the names where several do.
  absl::StatusOr<Chip> ResolveChip(const std::string& name) const;
  absl::StatusOr<Device> ResolveDevice(const std::string& name) const;
  absl::StatusOr<ModelShape> ResolveModel(const std::string& name) const;

  // In order; ChipNames are not among DeviceNames.
  std::vector<std::string> ChipNames() const;
  std::vector<std::string> DeviceNames() const;
  std::vector<std::string> ModelNames() const;
  std::vector<std::string> EngineNames() const;

 private:
  template <typename Value>
  struct Entry {
    Value value;
    std::string where;
  };
  template <typename Value>
  using Table = std::map<std::string, Entry<Value>>;
  template <typename Value>
  static absl::Status Add(Table<Value>& table, const char* kind, Value value,
                          absl::string_view where);

  Table<Chip> chips_;
  Table<Device> devices_;
  Table<ModelShape> models_;
  Table<Engine> engines_;
};

}  // namespace tandem::model
