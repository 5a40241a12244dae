#pragma once

// page.html, which CMake makes a constant of.

#include <absl/strings/string_view.h>

namespace tandem::ctl {

extern const absl::string_view kExplainPage;
inline constexpr absl::string_view kExplainPagePlace = "@REPORT@";  // where the report goes

}  // namespace tandem::ctl
