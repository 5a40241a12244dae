#include "services/gateway/text/llama/llama_text_model.h"

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <chat.h>
#include <llama.h>

#include <algorithm>
#include <bitset>
#include <climits>
#include <filesystem>
#include <utility>

#include "scheduler/base/status.h"
#include "services/gateway/text/llama/control_tokens.h"

namespace tandem::gateway {
namespace {

// Tokens that swallow the white space beside them.
constexpr int kStripping = LLAMA_TOKEN_ATTR_LSTRIP | LLAMA_TOKEN_ATTR_RSTRIP;

struct FreeModel {
  void operator()(llama_model* model) const { llama_model_free(model); }
};

// GGUF metadata as text; empty when the key is absent.
std::string Metadata(const llama_model* model, const char* key) {
  const int32_t length = llama_model_meta_val_str(model, key, nullptr, 0);
  if (length <= 0) return "";
  std::string value(static_cast<size_t>(length) + 1, '\0');
  llama_model_meta_val_str(model, key, value.data(), value.size());
  value.resize(static_cast<size_t>(length));
  return value;
}

std::string Piece(const llama_vocab* vocab, uint32_t id, bool special) {
  std::string piece(32, '\0');
  const auto token = static_cast<llama_token>(id);
  int32_t length = llama_token_to_piece(vocab, token, piece.data(),
                                        static_cast<int32_t>(piece.size()), 0, special);
  if (length < 0) {
    piece.resize(static_cast<size_t>(-length));
    length = llama_token_to_piece(vocab, token, piece.data(), static_cast<int32_t>(piece.size()), 0,
                                  special);
  }
  piece.resize(static_cast<size_t>(std::max(length, 0)));
  return piece;
}

class LlamaTextModel final : public TextModel {
 public:
  LlamaTextModel(std::unique_ptr<llama_model, FreeModel> model, common_chat_templates_ptr templates,
                 std::string name)
      : model_(std::move(model)),
        vocab_(llama_model_get_vocab(model_.get())),
        templates_(std::move(templates)),
        name_(std::move(name)),
        controls_(vocab_) {
    // llama_model_n_ctx_train is 0 in a model loaded without weights.
    const std::string length = Metadata(model_.get(), "general.architecture") + ".context_length";
    if (!absl::SimpleAtoi(Metadata(model_.get(), length.c_str()), &context_tokens_))
      context_tokens_ = 0;
    // Each token's bytes once: the hot path of every stream is then one look-up.
    const uint32_t size = vocabulary_size();
    bytes_.reserve(size);
    // Other kinds normalise text and so lose bytes of it.
    const auto kind = llama_vocab_type(vocab_);
    bool bounded = kind == LLAMA_VOCAB_TYPE_BPE || kind == LLAMA_VOCAB_TYPE_SPM;
    for (uint32_t id = 0; id < size; ++id) {
      bytes_.push_back(Piece(vocab_, id, /*special=*/false));
      const std::string piece = Piece(vocab_, id, /*special=*/true);
      longest_ = std::max(longest_, piece.size());
      if (piece.size() == 1) says_.set(static_cast<uint8_t>(piece[0]));
      const int attributes = llama_vocab_get_attr(vocab_, static_cast<llama_token>(id));
      bounded = bounded && (attributes & kStripping) == 0;
    }
    if (!bounded) longest_ = 0;
  }

  const std::string& name() const override { return name_; }
  uint32_t vocabulary_size() const override {
    return static_cast<uint32_t>(llama_vocab_n_tokens(vocab_));
  }
  uint32_t context_tokens() const override { return context_tokens_; }
  uint64_t LeastTokens(absl::string_view text) const override {
    if (longest_ == 0) return 0;
    const auto said = [this](char c) { return says_[static_cast<uint8_t>(c)]; };
    const auto bytes = static_cast<uint64_t>(std::count_if(text.begin(), text.end(), said));
    return (bytes + longest_ - 1) / longest_;
  }

  absl::StatusOr<std::vector<uint32_t>> Encode(absl::string_view text) const override {
    std::vector<uint32_t> ids;
    RETURN_IF_ERROR(Append(text, /*add_special=*/true, /*parse_special=*/true, ids));
    return ids;
  }

  // llama.cpp cuts a text at its control tokens and encodes what is between piece by piece. So does
  // this, but at those outside of literals only: README.md says why not at the literals' borders.
  absl::StatusOr<std::vector<uint32_t>> Encode(const ChatPrompt& prompt) const override {
    if (prompt.literals.empty()) return Encode(prompt.text);
    std::vector<uint32_t> ids;
    RETURN_IF_ERROR(Append("", /*add_special=*/true, /*parse_special=*/true, ids));
    const absl::string_view text = prompt.text;
    size_t piece = 0, at = 0;
    auto literal = prompt.literals.begin();
    while (at < text.size()) {
      if (literal != prompt.literals.end() && at == literal->begin) {
        at += literal->length;
        ++literal;
        continue;
      }
      const size_t limit = literal == prompt.literals.end() ? text.size() : literal->begin;
      const size_t length = controls_.LengthAt(text.substr(0, limit), at);
      if (length == 0) {
        ++at;
        continue;
      }
      RETURN_IF_ERROR(Append(text.substr(piece, at - piece), false, /*parse_special=*/false, ids));
      RETURN_IF_ERROR(Append(text.substr(at, length), false, /*parse_special=*/true, ids));
      piece = at += length;
    }
    RETURN_IF_ERROR(Append(text.substr(piece), false, /*parse_special=*/false, ids));
    return ids;
  }

  std::string TokenBytes(uint32_t id) const override {
    return id < bytes_.size() ? bytes_[id] : "";
  }
  std::string TokenName(uint32_t id) const override {
    return id < bytes_.size() ? Piece(vocab_, id, /*special=*/true) : "";
  }

  absl::StatusOr<ChatPrompt> RenderChat(const std::vector<ChatMessage>& messages) const override {
    common_chat_templates_inputs inputs;
    inputs.use_jinja = true;
    inputs.add_generation_prompt = true;
    inputs.add_bos = llama_vocab_get_add_bos(vocab_);  // Encode adds it: the template must not
    LiteralMarks marks(controls_, messages);
    for (const ChatMessage& message : messages) {
      common_chat_msg& out = inputs.messages.emplace_back();
      out.role = message.role;
      out.content = marks.Mark(message.content);
    }
    try {
      return marks.Restore(common_chat_templates_apply(templates_.get(), inputs).prompt);
    } catch (const std::exception& error) {
      return absl::InvalidArgumentError(
          absl::StrCat("the model's chat template refuses the messages: ", error.what()));
    }
  }

 private:
  absl::Status Append(absl::string_view text, bool add_special, bool parse_special,
                      std::vector<uint32_t>& ids) const {
    if (text.size() > INT_MAX / 2) {
      return absl::InvalidArgumentError(
          absl::StrCat(text.size(), " bytes of text are too many to encode"));
    }
    if (text.empty() && !add_special) return absl::OkStatus();
    std::vector<llama_token> tokens(text.size() +
                                    8);  // a token is at least one byte; a few are added
    const int32_t count =
        llama_tokenize(vocab_, text.data(), static_cast<int32_t>(text.size()), tokens.data(),
                       static_cast<int32_t>(tokens.size()), add_special, parse_special);
    if (count < 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the tokenizer refused ", text.size(), " bytes of text"));
    }
    ids.insert(ids.end(), tokens.begin(), tokens.begin() + count);
    return absl::OkStatus();
  }

  std::unique_ptr<llama_model, FreeModel> model_;
  const llama_vocab* vocab_;
  common_chat_templates_ptr templates_;
  std::string name_;
  ControlTokens controls_;
  std::vector<std::string> bytes_;
  // Of a token, in bytes; 0: some token can stand for any amount of text.
  size_t longest_ = 1;
  std::bitset<256> says_;  // bytes that are tokens; llama.cpp may drop others
  uint32_t context_tokens_ = 0;
};

void PrintErrors(ggml_log_level level, const char* text, void*) {
  if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
}

}  // namespace

absl::StatusOr<std::unique_ptr<TextModel>> LoadLlamaTextModel(const std::string& gguf_path) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(gguf_path, ignored)) {
    return absl::NotFoundError(absl::StrCat("model ", gguf_path, ": no such file"));
  }
  llama_log_set(PrintErrors, nullptr);
  llama_model_params params = llama_model_default_params();
  params.vocab_only = true;
  try {
    std::unique_ptr<llama_model, FreeModel> model(
        llama_model_load_from_file(gguf_path.c_str(), params));
    if (model == nullptr) {
      return absl::InvalidArgumentError(
          absl::StrCat("model ", gguf_path, ": llama.cpp cannot read it"));
    }
    if (llama_vocab_n_tokens(llama_model_get_vocab(model.get())) <= 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("model ", gguf_path, ": it has no vocabulary"));
    }
    common_chat_templates_ptr templates = common_chat_templates_init(model.get(), "");
    std::string name = Metadata(model.get(), "general.name");
    if (name.empty()) name = std::filesystem::path(gguf_path).stem().string();
    return std::make_unique<LlamaTextModel>(std::move(model), std::move(templates),
                                            std::move(name));
  } catch (const std::exception& error) {
    return absl::InvalidArgumentError(absl::StrCat("model ", gguf_path, ": ", error.what()));
  }
}

}  // namespace tandem::gateway
