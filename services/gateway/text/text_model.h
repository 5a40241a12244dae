#pragma once

// What the gateway needs of a model to turn text into token ids and back. llama/ implements it from
// a GGUF's vocabulary; tests have a byte-wise one.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tandem::gateway {

// One message of a chat, as the template sees it: role is "system", "user" or "assistant".
struct ChatMessage {
  std::string role;
  std::string content;
};

// Messages rendered by a template, and where words of theirs stand that would read as the model's
// control tokens ("<|im_end|>"): those are text.
struct ChatPrompt {
  struct Literal {
    size_t begin = 0, length = 0;  // bytes
  };
  std::string text;
  std::vector<Literal> literals;  // in order, apart
};

// Safe from any thread.
class TextModel {
 public:
  virtual ~TextModel() = default;

  // The model's own name; what /v1/models says unless the configuration names another.
  virtual const std::string& name() const = 0;
  virtual uint32_t vocabulary_size() const = 0;
  // The longest sequence that the model was trained for, in tokens; 0: the model does not say.
  virtual uint32_t context_tokens() const = 0;
  // What `text` encodes to is no fewer tokens: its bytes over those of the longest token. Bounds
  // what can fit a context before anything is encoded. 0: nothing is known.
  virtual uint64_t LeastTokens(absl::string_view text) const = 0;

  // Text to ids, with what the model puts before every text (BOS). Special tokens written in the
  // text become themselves. kInvalidArgument: the text cannot be encoded.
  virtual absl::StatusOr<std::vector<uint32_t>> Encode(absl::string_view text) const = 0;
  // The same, but no special token begins or ends within a literal. Without literals the ids are
  // those of the text.
  virtual absl::StatusOr<std::vector<uint32_t>> Encode(const ChatPrompt& prompt) const = 0;

  // The bytes of a token, `id` < vocabulary_size(); may begin or end inside a character. Control
  // tokens have none.
  virtual std::string TokenBytes(uint32_t id) const = 0;
  // The same, but control tokens by their name ("<|im_end|>"): for logprobs.
  virtual std::string TokenName(uint32_t id) const = 0;

  // The prompt that asks for the assistant's next message. kInvalidArgument: the model's template
  // refuses the messages.
  virtual absl::StatusOr<ChatPrompt> RenderChat(const std::vector<ChatMessage>& messages) const = 0;
};

}  // namespace tandem::gateway
