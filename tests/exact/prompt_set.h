#pragma once

// Prompts to decode, and what a reference made of them: read and written as JSON, and as a binary
// dump with logits.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <string>
#include <vector>

namespace tandem::exact {

struct Prompt {
  std::string name;
  std::string text;  // to be tokenized; unused when `ids` are given
  std::vector<uint32_t> ids;
  uint32_t max_tokens = 0;  // a sequence also ends with an end-of-generation token
};

// {"prompts":[{"name","text" or "ids","max_tokens"}]}
absl::StatusOr<std::vector<Prompt>> ReadPrompts(const std::string& path);

// One sequence decoded alone, greedily.
struct ReferenceSequence {
  std::string name;
  uint32_t max_tokens = 0;
  std::vector<uint32_t> prompt_ids;
  std::vector<uint32_t> ids;  // generated
  std::vector<float> logits;  // [ids, vocabulary]; empty when only ids were asked for
};
struct Reference {
  uint32_t vocabulary = 0;
  std::vector<uint32_t> end_tokens;  // ascending
  std::vector<ReferenceSequence> sequences;
};

// {"end_tokens":[...],"prompts":[{"name","max_tokens","prompt_ids":[...],"ids":[...]}]}
absl::Status WriteIds(const Reference& reference, const std::string& path);
// The same with logits, in this machine's byte order: for one test run, not for keeping.
absl::Status WriteDump(const Reference& reference, const std::string& path);
absl::StatusOr<Reference> ReadDump(const std::string& path);

}  // namespace tandem::exact
