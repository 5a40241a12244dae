#include "scheduler/model/dtype.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>

namespace tandem::model {
namespace {

struct Entry {
  absl::string_view name;
  double bits;
};

// In the order of Dtype.
constexpr std::array<Entry, kAllDtypes.size()> kEntries = {
    {{"bf16", 16}, {"fp8", 8}, {"int8", 8}, {"int4", 4.5}, {"nvfp4", 4.5}, {"mxfp4", 4.25}}};

const Entry& EntryOf(Dtype dtype) { return kEntries.at(static_cast<size_t>(dtype)); }

}  // namespace

absl::string_view DtypeName(Dtype dtype) { return EntryOf(dtype).name; }

double BitsPerWeight(Dtype dtype) { return EntryOf(dtype).bits; }

absl::StatusOr<Dtype> ParseDtype(absl::string_view name) {
  for (const Dtype dtype : kAllDtypes) {
    if (DtypeName(dtype) == name) return dtype;
  }
  const auto append = [](std::string* out, const Entry& entry) {
    absl::StrAppend(out, entry.name);
  };
  return absl::InvalidArgumentError(
      absl::StrCat("'", name, "' is none of ", absl::StrJoin(kEntries, ", ", append)));
}

}  // namespace tandem::model
