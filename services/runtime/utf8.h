#pragma once

// Text from outside made safe for JSON and proto3 strings, which both hold valid UTF-8 only.

#include <absl/strings/string_view.h>

#include <cstddef>
#include <string>

namespace tandem {

// Bytes of the well-formed UTF-8 character at the start of `text`; 0 when it starts with none (or
// is empty). Overlong forms, surrogates and code points past U+10FFFF are not well-formed. Source:
// Unicode 15, table 3-7.
size_t Utf8CharacterBytes(absl::string_view text);

bool IsValidUtf8(absl::string_view text);

// Each byte that belongs to no well-formed character becomes U+FFFD.
std::string ToValidUtf8(absl::string_view text);

// `text` as a JSON string, with its quotes: control characters are escaped, ill-formed bytes become
// U+FFFD.
std::string JsonQuoted(absl::string_view text);

}  // namespace tandem
