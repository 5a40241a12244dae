#pragma once

// GET /admin/v1/tco?window=60s: what devices did and cost, as JSON.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <string>

#include "services/router/tco/tco_book.h"

namespace tandem::router {

inline constexpr char kTcoPath[] = "/admin/v1/tco";
inline constexpr char kDefaultWindow[] = "60s";

// `query` is what follows the '?'. kInvalidArgument: a parameter that is not window, or no window;
// kUnavailable: nothing is known of it.
absl::StatusOr<std::string> TcoPage(TcoBook& book, absl::string_view query, Instant now);

}  // namespace tandem::router
