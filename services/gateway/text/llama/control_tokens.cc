#include "services/gateway/text/llama/control_tokens.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>

#include <algorithm>

namespace tandem::gateway {

ControlTokens::ControlTokens(const llama_vocab* vocab) {
  for (llama_token id = 0; id < llama_vocab_n_tokens(vocab); ++id) {
    const int attributes = llama_vocab_get_attr(vocab, id);
    if ((attributes & (LLAMA_TOKEN_ATTR_CONTROL | LLAMA_TOKEN_ATTR_UNKNOWN)) == 0) continue;
    const std::string word = llama_vocab_get_text(vocab, id);
    if (!word.empty()) by_first_byte_[static_cast<uint8_t>(word[0])].push_back(word);
  }
  for (std::vector<std::string>& words : by_first_byte_) {
    std::sort(words.begin(), words.end(), [](const std::string& a, const std::string& b) {
      return a.size() != b.size() ? a.size() > b.size() : a < b;
    });
  }
}

size_t ControlTokens::LengthAt(absl::string_view text, size_t at) const {
  for (const std::string& word : by_first_byte_[static_cast<uint8_t>(text[at])]) {
    if (absl::StartsWith(text.substr(at), word)) return word.size();
  }
  return 0;
}

LiteralMarks::LiteralMarks(const ControlTokens& controls, const std::vector<ChatMessage>& messages)
    : controls_(controls) {
  const auto taken = [&](const std::string& mark) {
    return std::any_of(messages.begin(), messages.end(), [&](const ChatMessage& message) {
      return absl::StrContains(message.content, mark);
    });
  };
  uint64_t number = 0;
  do {
    mark_ = absl::StrCat("tandemliteral", number++, "x");
  } while (taken(mark_));
}

std::string LiteralMarks::Mark(absl::string_view content) {
  std::string marked;
  size_t from = 0;
  for (size_t at = 0; at < content.size();) {
    const size_t length = controls_.LengthAt(content, at);
    if (length == 0) {
      ++at;
      continue;
    }
    absl::StrAppend(&marked, content.substr(from, at - from), mark_, words_.size(), "e");
    words_.emplace_back(content.substr(at, length));
    from = at += length;
  }
  absl::StrAppend(&marked, content.substr(from));
  return marked;
}

ChatPrompt LiteralMarks::Restore(absl::string_view rendered) const {
  ChatPrompt prompt;
  size_t from = 0;
  while (!words_.empty()) {
    const size_t at = rendered.find(mark_, from);
    if (at == absl::string_view::npos) break;
    const size_t digits = at + mark_.size(), end = rendered.find('e', digits);
    size_t number = 0;
    absl::StrAppend(&prompt.text, rendered.substr(from, at - from));
    from = digits;
    if (end == absl::string_view::npos ||
        !absl::SimpleAtoi(rendered.substr(digits, end - digits), &number) ||
        number >= words_.size()) {
      continue;  // cut by the template: what is left of the mark is dropped
    }
    prompt.literals.push_back({prompt.text.size(), words_[number].size()});
    prompt.text += words_[number];
    from = end + 1;
  }
  absl::StrAppend(&prompt.text, rendered.substr(from));
  return prompt;
}

}  // namespace tandem::gateway
