#pragma once

#include <cstdint>
#include <deque>
#include <string>
#include <utility>
#include <vector>

#include "services/gateway/text/stop_matcher.h"
#include "services/gateway/text/text_model.h"
#include "services/gateway/text/utf8.h"

namespace tandem::gateway {

// A token's chance, as the attention worker reported it.
struct TokenLogprob {
  float logprob = 0;
  std::vector<std::pair<uint32_t, float>> top;  // alternatives, descending
};

// A token whose text has gone out, for the logprobs of an answer.
struct ReleasedToken {
  uint32_t id = 0;
  size_t text_offset = 0;       // bytes of the choice's text before it
  size_t character_offset = 0;  // the same in characters, as clients count
  TokenLogprob logprob;
};

// What became visible with some tokens.
struct TextDelta {
  std::string text;                   // well-formed UTF-8; empty while all is held back
  std::vector<ReleasedToken> tokens;  // only when logprobs are kept; parallel to the text's growth
};

// One choice's way from ids to text: bytes, characters, stop strings. Not thread-safe.
class ChoiceText {
 public:
  // `silent_ids` end a sequence and have no text (the request's stop_token_ids). `model` outlives
  // this.
  ChoiceText(const TextModel& model, std::vector<std::string> stops,
             std::vector<uint32_t> silent_ids, bool keep_logprobs);

  // Adds one token's text to `delta`. After stopped() nothing more is added.
  void Push(uint32_t id, TokenLogprob logprob, TextDelta& delta);
  // The sequence ended: what was held back becomes visible, unless a stop string matched.
  void Finish(TextDelta& delta);

  bool stopped() const { return matcher_.stopped(); }
  // Tokens that count: all pushed, up to the one that completed the stop string.
  uint32_t tokens() const { return tokens_; }

 private:
  struct Pending {
    ReleasedToken token;
    size_t end;  // bytes of the choice's raw text with it
  };
  void Release(const std::string& text, bool all, TextDelta& delta);

  const TextModel& model_;
  Utf8Joiner joiner_;
  StopMatcher matcher_;
  std::vector<uint32_t> silent_ids_;
  bool keep_logprobs_;
  uint32_t tokens_ = 0;
  size_t raw_bytes_ = 0;  // of all characters that came out of the joiner
  size_t raw_characters_ = 0;
  size_t visible_bytes_ = 0;  // of those that went out
  std::deque<Pending> pending_;
};

}  // namespace tandem::gateway
