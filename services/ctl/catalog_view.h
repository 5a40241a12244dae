#pragma once

// What `tandemctl catalog` prints: lists, and one entry with every figure, its mark and source,
// and what follows from them.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>
#include <vector>

#include "scheduler/model/catalog.h"
#include "scheduler/model/figures.h"

namespace tandem::ctl {

// A number that follows from figures, or of a model's shape.
struct DerivedFigure {
  std::string name;
  double value = 0;
  model::Unit unit = model::Unit::kNone;
  std::string how;  // from what; empty in a shape
};

struct CatalogEntry {
  std::string kind, name;  // "chip", "h100-sxm"
  std::string what;        // "hbm", "8 x h100-sxm, tp 8"
  std::string source;  // of a device's grouping or a model's shape; a chip's figures have theirs
  std::vector<model::NamedFigure> figures;
  std::vector<DerivedFigure> shape, derived;
};
CatalogEntry EntryOf(const model::Chip& chip);
CatalogEntry EntryOf(const model::Device& device);
CatalogEntry EntryOf(const model::ModelShape& shape);
CatalogEntry EntryOf(const model::Engine& engine);

// `kind`: chip, device, model or engine, and a name or a short form of one. Errors are the
// catalog's; kInvalidArgument: no such kind.
absl::StatusOr<CatalogEntry> FindEntry(const model::Catalog& catalog, absl::string_view kind,
                                       const std::string& name);

// One line an entry, of one kind or, where `kind` is empty, of all. kInvalidArgument: no such kind.
absl::StatusOr<std::string> CatalogText(const model::Catalog& catalog, absl::string_view kind);
// A list of EntryJson by kind.
absl::StatusOr<std::string> CatalogJson(const model::Catalog& catalog, absl::string_view kind);

// The last line without a line break.
std::string EntryText(const CatalogEntry& entry);
std::string EntryJson(const CatalogEntry& entry);

}  // namespace tandem::ctl
