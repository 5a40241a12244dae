#pragma once

// A text model whose tokens stand for pieces of an input.

#include <string>
#include <vector>

#include "services/gateway/text/text_model.h"

namespace tandem::fuzz {

// Token i is the i-th piece, counted round; there is at least one when a token is looked up.
class PieceTextModel final : public gateway::TextModel {
 public:
  std::vector<std::string> pieces;

  const std::string& name() const override { return name_; }
  uint32_t vocabulary_size() const override { return static_cast<uint32_t>(pieces.size()); }
  uint32_t context_tokens() const override { return 0; }
  uint64_t LeastTokens(absl::string_view) const override { return 0; }
  absl::StatusOr<std::vector<uint32_t>> Encode(absl::string_view) const override {
    return absl::UnimplementedError("pieces are only decoded");
  }
  absl::StatusOr<std::vector<uint32_t>> Encode(const gateway::ChatPrompt&) const override {
    return absl::UnimplementedError("pieces are only decoded");
  }
  std::string TokenBytes(uint32_t id) const override { return pieces[id % pieces.size()]; }
  std::string TokenName(uint32_t id) const override { return TokenBytes(id); }
  absl::StatusOr<gateway::ChatPrompt> RenderChat(
      const std::vector<gateway::ChatMessage>&) const override {
    return absl::UnimplementedError("pieces have no template");
  }

 private:
  std::string name_ = "pieces";
};

}  // namespace tandem::fuzz
