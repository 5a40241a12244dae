#pragma once

// Which token ids end a generation. A GGUF names one (eos) and leaves the others to their texts.

#include <cstdint>
#include <set>
#include <string>
#include <vector>

namespace tandem::ggml_cpu {

// What a GGUF's tokenizer section says.
struct SpecialTokens {
  std::vector<std::string> texts;  // [vocabulary]
  std::set<uint32_t> named;  // eos, eot, eom and the fill-in-the-middle pad, repo and separator
                             // ids, as far as given
};

// End-of-generation ids, ascending, by the rules of the llama.cpp that we build with
// (llama_vocab::impl::load, "maintain a list of tokens that cause end-of-generation"). tests/exact
// compares the outcome with llama_vocab_is_eog.
std::vector<uint32_t> EndTokens(const SpecialTokens& tokens);

}  // namespace tandem::ggml_cpu
