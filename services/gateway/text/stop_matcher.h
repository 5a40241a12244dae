#pragma once

#include <absl/strings/string_view.h>

#include <string>
#include <vector>

namespace tandem::gateway {

// Finds stop strings in text that comes in pieces, across their borders. Gives out all text before
// the first match and holds back only what could still become one: less than the longest stop
// string.
class StopMatcher {
 public:
  // No string is empty. With none, text passes straight through.
  explicit StopMatcher(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  // The text that is free to go. Once stopped() it is empty: what follows a match is nobody's.
  // Of several matches the one that starts first counts.
  std::string Push(absl::string_view text);
  // What was held back, at the sequence's end without a match.
  std::string Finish();
  bool stopped() const { return stopped_; }

 private:
  // Length of the longest end of held_ that begins some stop string.
  size_t PossibleStart() const;

  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace tandem::gateway
