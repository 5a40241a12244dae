#include "services/ctl/terminal_text.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>

#include <cstdint>

#include "services/runtime/utf8.h"

namespace tandem::ctl {
namespace {

// Of a well-formed character.
uint32_t CodePoint(absl::string_view character) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(character[i]); };
  switch (character.size()) {
    case 1:
      return byte(0);
    case 2:
      return (byte(0) & 0x1fu) << 6 | (byte(1) & 0x3fu);
    case 3:
      return (byte(0) & 0x0fu) << 12 | (byte(1) & 0x3fu) << 6 | (byte(2) & 0x3fu);
    default:
      return (byte(0) & 0x07u) << 18 | (byte(1) & 0x3fu) << 12 | (byte(2) & 0x3fu) << 6 |
             (byte(3) & 0x3fu);
  }
}

// C0, DEL and C1; marks, embeddings and isolates of direction (Unicode UAX 9); line and paragraph
// separators; the byte order mark, tags and other characters that have no shape.
bool IsControl(uint32_t c) {
  return c < 0x20 || (c >= 0x7f && c <= 0x9f) || c == 0xad || c == 0x61c ||
         (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) ||
         (c >= 0x2060 && c <= 0x206f) || c == 0xfeff || (c >= 0xe0000 && c <= 0xe007f);
}

void AppendEscape(uint32_t c, std::string& out) {
  if (c == '\n') {
    out += "\\n";
  } else if (c == '\t') {
    out += "\\t";
  } else if (c == '\r') {
    out += "\\r";
  } else if (c < 0x80) {
    absl::StrAppendFormat(&out, "\\x%02x", c);
  } else {
    absl::StrAppendFormat(&out, "\\u{%x}", c);
  }
}

}  // namespace

std::string EscapeForTerminal(absl::string_view text) {
  const std::string valid = ToValidUtf8(text);
  absl::string_view rest = valid;
  std::string out;
  while (!rest.empty()) {
    const absl::string_view character = rest.substr(0, Utf8CharacterBytes(rest));
    rest.remove_prefix(character.size());
    const uint32_t c = CodePoint(character);
    if (IsControl(c)) {
      AppendEscape(c, out);
    } else if (c == '\\') {
      out += "\\\\";
    } else {
      absl::StrAppend(&out, character);
    }
  }
  return out;
}

std::string NameForTerminal(absl::string_view text, size_t width) {
  const std::string valid = ToValidUtf8(text);
  absl::string_view rest = valid;
  std::string out;
  while (!rest.empty()) {
    if (out.size() == width) {
      if (!out.empty()) out.back() = '~';
      break;
    }
    const size_t bytes = Utf8CharacterBytes(rest);
    const char first = rest[0];
    out += bytes == 1 && first >= 0x20 && first < 0x7f ? first : '?';
    rest.remove_prefix(bytes);
  }
  return out;
}

}  // namespace tandem::ctl
