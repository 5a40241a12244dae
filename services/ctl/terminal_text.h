#pragma once

// Text from outside, shown in a terminal: nothing of it moves the cursor, colours or reorders.

#include <absl/strings/string_view.h>

#include <string>

namespace tandem::ctl {

// On one line: "\n", "\t", "\x1b", "\u{202e}" for what controls a terminal or the direction of
// text, U+FFFD for bytes that are no UTF-8; a backslash is doubled. All else is as it was.
std::string EscapeForTerminal(absl::string_view text);

// The same for names that stand in columns: one column a character. What is not printable ASCII
// becomes '?'; past `width` columns it is cut, and ends in '~'.
std::string NameForTerminal(absl::string_view text, size_t width);

}  // namespace tandem::ctl
