#pragma once

// UTF-8 at the seams of tokens: a token may end inside a character.

#include <absl/strings/string_view.h>

#include <string>

namespace tandem::gateway {

// Joins byte pieces into well-formed UTF-8. A character is given out when its last byte has come;
// bytes that can no longer become one are replaced by U+FFFD, one for each maximal bad part
// (Unicode 15, section 3.9, the W3C's practice).
class Utf8Joiner {
 public:
  // The text that is complete with these bytes; holds back at most 3.
  std::string Push(absl::string_view bytes);
  // What is held back, as U+FFFD; the joiner is empty afterwards.
  std::string Finish();
  bool holds() const { return !held_.empty(); }

 private:
  std::string held_;
};

}  // namespace tandem::gateway
