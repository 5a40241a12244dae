#pragma once

// A TextModel whose tokens are bytes: every character border and stop string can be cut wherever a
// test wants.

#include <absl/strings/str_cat.h>

#include <atomic>
#include <string>
#include <vector>

#include "services/gateway/text/text_model.h"

namespace tandem::test {

class ByteTextModel final : public gateway::TextModel {
 public:
  static constexpr uint32_t kEnd = 256;     // "<|end|>", the end of generation
  static constexpr uint32_t kPhrase = 257;  // "hello world": one token of many bytes

  const std::string& name() const override { return name_; }
  uint32_t vocabulary_size() const override { return 258; }
  uint32_t context_tokens() const override { return 4096; }
  uint64_t LeastTokens(absl::string_view text) const override { return (text.size() + 10) / 11; }
  absl::StatusOr<std::vector<uint32_t>> Encode(absl::string_view text) const override {
    encoded_bytes_ += text.size();
    std::vector<uint32_t> ids;
    for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
    return ids;
  }
  absl::StatusOr<std::vector<uint32_t>> Encode(const gateway::ChatPrompt& prompt) const override {
    return Encode(prompt.text);
  }
  size_t encoded_bytes() const { return encoded_bytes_; }  // so far
  std::string TokenBytes(uint32_t id) const override {
    if (id == kPhrase) return "hello world";
    return id < 256 ? std::string(1, static_cast<char>(id)) : "";
  }
  std::string TokenName(uint32_t id) const override {
    return id == kEnd ? "<|end|>" : TokenBytes(id);
  }
  // "user: hi\nassistant: "; a message with the content "refuse" is refused.
  absl::StatusOr<gateway::ChatPrompt> RenderChat(
      const std::vector<gateway::ChatMessage>& messages) const override {
    std::string prompt;
    for (const gateway::ChatMessage& message : messages) {
      if (message.content == "refuse") return absl::InvalidArgumentError("the template refuses");
      absl::StrAppend(&prompt, message.role, ": ", message.content, "\n");
    }
    return gateway::ChatPrompt{prompt + "assistant: ", {}};
  }

 private:
  std::string name_ = "byte-model";
  mutable std::atomic<size_t> encoded_bytes_{0};
};

}  // namespace tandem::test
