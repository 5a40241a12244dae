#pragma once

// Short forms for functions that return absl::Status or absl::StatusOr.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <utility>

// Returns the status from the enclosing function unless it is OK.
#define RETURN_IF_ERROR(expression)             \
  do {                                          \
    absl::Status tandem_status_ = (expression); \
    if (!tandem_status_.ok()) [[unlikely]]      \
      return tandem_status_;                    \
  } while (false)

#define TANDEM_CONCAT_INNER_(a, b) a##b
#define TANDEM_CONCAT_(a, b) TANDEM_CONCAT_INNER_(a, b)

// ASSIGN_OR_RETURN(auto model, LoadModel(path)): the value, or return the status.
#define ASSIGN_OR_RETURN(lhs, expression) \
  ASSIGN_OR_RETURN_IMPL_(TANDEM_CONCAT_(tandem_or_, __LINE__), lhs, expression)
// NOLINTBEGIN(bugprone-macro-parentheses): holder and lhs are declared, which parentheses would
// break.
#define ASSIGN_OR_RETURN_IMPL_(holder, lhs, expression) \
  auto holder = (expression);                           \
  if (!holder.ok()) [[unlikely]]                        \
    return holder.status();                             \
  lhs = *std::move(holder)
// NOLINTEND(bugprone-macro-parentheses)
