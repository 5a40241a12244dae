#include "services/gateway/text/choice_text.h"

#include <algorithm>

namespace tandem::gateway {

namespace {

size_t Characters(const std::string& text) {
  return static_cast<size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<uint8_t>(c) & 0xC0) != 0x80; }));
}

}  // namespace

ChoiceText::ChoiceText(const TextModel& model, std::vector<std::string> stops,
                       std::vector<uint32_t> silent_ids, bool keep_logprobs)
    : model_(model),
      matcher_(std::move(stops)),
      silent_ids_(std::move(silent_ids)),
      keep_logprobs_(keep_logprobs) {}

void ChoiceText::Push(uint32_t id, TokenLogprob logprob, TextDelta& delta) {
  if (stopped()) return;
  ++tokens_;
  const bool silent = std::find(silent_ids_.begin(), silent_ids_.end(), id) != silent_ids_.end();
  const std::string bytes = silent ? "" : model_.TokenBytes(id);
  if (bytes.empty()) return;  // a control token: it counts, and has no text to have a chance of
  const size_t offset = raw_bytes_, characters = raw_characters_;
  const std::string text = joiner_.Push(bytes);
  raw_bytes_ += text.size();
  if (keep_logprobs_) {
    raw_characters_ += Characters(text);
    pending_.push_back({{id, offset, characters, std::move(logprob)}, raw_bytes_});
  }
  Release(matcher_.Push(text), false, delta);
}

void ChoiceText::Finish(TextDelta& delta) {
  if (stopped()) return;
  const std::string tail = joiner_.Finish();
  raw_bytes_ += tail.size();
  std::string text = matcher_.Push(tail);
  if (!stopped()) text += matcher_.Finish();
  Release(text, !stopped(), delta);
}

// A token goes out with the last of its text; one that a match cut goes out if some of its text
// did.
void ChoiceText::Release(const std::string& text, bool all, TextDelta& delta) {
  visible_bytes_ += text.size();
  delta.text += text;
  while (!pending_.empty()) {
    const Pending& first = pending_.front();
    // A token that completed no character waits for the one that does.
    const bool whole = first.end <= visible_bytes_ && first.end > first.token.text_offset;
    const bool cut = stopped() && first.token.text_offset < visible_bytes_;
    const bool joined = !whole && pending_.size() > 1 && first.end == first.token.text_offset &&
                        first.end < visible_bytes_;
    if (!all && !whole && !cut && !joined) break;
    delta.tokens.push_back(std::move(pending_.front().token));
    pending_.pop_front();
  }
  if (stopped()) pending_.clear();
}

}  // namespace tandem::gateway
