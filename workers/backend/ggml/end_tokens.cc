#include "workers/backend/ggml/end_tokens.h"

#include <algorithm>
#include <map>

namespace tandem::ggml_cpu {
namespace {

constexpr const char* kEndTexts[] = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
    "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>",
    "<｜end▁of▁sentence｜>", "[e~[",
    // Fill-in-the-middle: pad, repository, file separator.
    "<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]", "<|fim_repo|>", "<|repo_name|>",
    "<fim-repo>", "<REPO>", "<reponame>", "<|file_sep|>"};

}  // namespace

std::vector<uint32_t> EndTokens(const SpecialTokens& tokens) {
  std::map<std::string, uint32_t> by_text;
  for (uint32_t id = 0; id < tokens.texts.size(); ++id) by_text[tokens.texts[id]] = id;
  std::set<uint32_t> ends = tokens.named;
  for (const char* text : kEndTexts) {
    if (auto it = by_text.find(text); it != by_text.end()) ends.insert(it->second);
  }
  const auto has = [&](const char* text) {
    auto it = by_text.find(text);
    return it != by_text.end() && ends.contains(it->second);
  };
  const auto drop = [&](const char* text) { ends.erase(by_text.at(text)); };
  // Formats in which these two stand inside an answer.
  const bool calls = has("<|call|>") || has("<|calls|>");
  if (has("<|end|>") && calls && (has("<|return|>") || has("<|flush|>"))) drop("<|end|>");
  if (has("</s>") && (has("<|tool_response>") || has("<|plamo:eos|>"))) drop("</s>");
  return {ends.begin(), ends.end()};
}

}  // namespace tandem::ggml_cpu
