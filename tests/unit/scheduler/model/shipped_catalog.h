#pragma once

// The catalog that comes with the product, as it stands in the source tree.

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <cstdlib>

#include "services/runtime/catalog_files.h"

namespace tandem::model {

inline const Catalog& Shipped() {
  static const Catalog catalog = [] {
    auto read =
        LoadCatalog({absl::StrCat(std::getenv("TANDEM_SOURCE_DIR"), "/scheduler/model/catalog")});
    EXPECT_TRUE(read.ok()) << read.status();
    return read.value_or(Catalog());
  }();
  return catalog;
}

}  // namespace tandem::model
