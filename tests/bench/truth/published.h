#pragma once

// The published single-system figures of facts/published.md: predicted, or why not.

#include <absl/status/statusor.h>

#include <string>

#include "scheduler/model/catalog.h"

namespace tandem::truth {

absl::StatusOr<std::string> PublishedTable(const model::Catalog& catalog);

}  // namespace tandem::truth
