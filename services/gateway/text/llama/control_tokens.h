#pragma once

// A model's control tokens as words that a message may hold.

#include <absl/strings/string_view.h>
#include <llama.h>

#include <array>
#include <string>
#include <vector>

#include "services/gateway/text/text_model.h"

namespace tandem::gateway {

// The words that llama.cpp takes for tokens when it parses special tokens, and for text when it
// does not (kinds CONTROL and UNKNOWN).
class ControlTokens {
 public:
  explicit ControlTokens(const llama_vocab* vocab);

  // Bytes of the longest one that begins there; 0: none does.
  size_t LengthAt(absl::string_view text, size_t at) const;

 private:
  std::array<std::vector<std::string>, 256> by_first_byte_;  // longest first
};

// Takes control words of messages through a template: each is replaced by a mark that no message
// holds, and put back as a literal. Not thread-safe.
class LiteralMarks {
 public:
  LiteralMarks(const ControlTokens& controls, const std::vector<ChatMessage>& messages);

  std::string Mark(absl::string_view content);
  ChatPrompt Restore(absl::string_view rendered) const;

 private:
  const ControlTokens& controls_;
  std::string mark_;  // letters and digits only: templates trim, quote and escape; its number and
                      // 'e' follow
  std::vector<std::string> words_;
};

}  // namespace tandem::gateway
