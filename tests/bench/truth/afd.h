#pragma once

// The AFD rows of facts/afd.md, predicted with one scalar fitted on the one row without AFD.

#include <absl/status/statusor.h>

#include <string>

#include "scheduler/model/catalog.h"

namespace tandem::truth {

// The table and its assumptions, as text.
absl::StatusOr<std::string> AfdTable(const model::Catalog& catalog);

}  // namespace tandem::truth
