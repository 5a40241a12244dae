// The yardstick: libllama decoding each prompt alone, greedily, in the reference class
// (DESIGN 8.1): CPU, flash attention, F16 KV, n_ubatch 32, one thread. Links libllama and nothing
// of our backend.

#include <absl/strings/str_cat.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "ggml-cpu.h"
#include "llama.h"
#include "scheduler/base/status.h"
#include "tests/exact/prompt_set.h"

namespace tandem::exact {
namespace {

constexpr uint32_t kMicroBatchTokens = 32;

struct Free {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
  void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
};
template <typename T>
using Owned = std::unique_ptr<T, Free>;

absl::StatusOr<std::vector<uint32_t>> Tokenize(const llama_vocab* vocab, const Prompt& prompt) {
  if (!prompt.ids.empty()) return prompt.ids;
  std::vector<llama_token> tokens(prompt.text.size() + 8);
  const int count =
      llama_tokenize(vocab, prompt.text.data(), static_cast<int>(prompt.text.size()), tokens.data(),
                     static_cast<int>(tokens.size()), /*add_special=*/true, /*parse_special=*/true);
  if (count <= 0)
    return absl::InvalidArgumentError(absl::StrCat("prompt '", prompt.name, "': cannot tokenize"));
  return std::vector<uint32_t>(tokens.begin(), tokens.begin() + count);
}

absl::StatusOr<ReferenceSequence> Decode(llama_model* model, ggml_threadpool* pool,
                                         const Prompt& prompt, bool with_logits) {
  const llama_vocab* vocab = llama_model_get_vocab(model);
  ReferenceSequence sequence;
  sequence.name = prompt.name;
  sequence.max_tokens = prompt.max_tokens;
  ASSIGN_OR_RETURN(sequence.prompt_ids, Tokenize(vocab, prompt));

  llama_context_params params = llama_context_default_params();
  params.n_ctx = static_cast<uint32_t>(sequence.prompt_ids.size()) + prompt.max_tokens;
  params.n_batch = params.n_ctx;
  params.n_ubatch = kMicroBatchTokens;
  params.n_threads = params.n_threads_batch = 1;
  params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
  params.type_k = params.type_v = GGML_TYPE_F16;
  params.no_perf = true;
  Owned<llama_context> context(llama_init_from_model(model, params));
  if (context == nullptr)
    return absl::InternalError(absl::StrCat("prompt '", prompt.name, "': no context"));
  llama_attach_threadpool(context.get(), pool, pool);

  const int vocabulary = llama_vocab_n_tokens(vocab);
  std::vector<llama_token> next(sequence.prompt_ids.begin(), sequence.prompt_ids.end());
  while (sequence.ids.size() < prompt.max_tokens) {
    if (llama_decode(context.get(),
                     llama_batch_get_one(next.data(), static_cast<int>(next.size()))) != 0) {
      return absl::InternalError(absl::StrCat("prompt '", prompt.name, "': llama_decode failed"));
    }
    const float* logits = llama_get_logits_ith(context.get(), -1);
    const auto id =
        static_cast<llama_token>(std::max_element(logits, logits + vocabulary) - logits);
    sequence.ids.push_back(static_cast<uint32_t>(id));
    if (with_logits) sequence.logits.insert(sequence.logits.end(), logits, logits + vocabulary);
    if (llama_vocab_is_eog(vocab, id)) break;
    next.assign(1, id);
  }
  return sequence;
}

absl::Status Run(const std::string& model_path, const std::string& prompts_path,
                 const std::string& out_path, bool ids_only) {
  ASSIGN_OR_RETURN(const std::vector<Prompt> prompts, ReadPrompts(prompts_path));
  llama_log_set(
      [](ggml_log_level level, const char* text, void*) {
        if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
      },
      nullptr);
  Owned<llama_model> model(
      llama_model_load_from_file(model_path.c_str(), llama_model_default_params()));
  if (model == nullptr) return absl::InvalidArgumentError(absl::StrCat("cannot load ", model_path));
  ggml_threadpool_params pool_params = ggml_threadpool_params_default(1);
  Owned<ggml_threadpool> pool(ggml_threadpool_new(&pool_params));

  Reference reference;
  const llama_vocab* vocab = llama_model_get_vocab(model.get());
  reference.vocabulary = static_cast<uint32_t>(llama_vocab_n_tokens(vocab));
  for (uint32_t id = 0; id < reference.vocabulary; ++id) {
    if (llama_vocab_is_eog(vocab, static_cast<llama_token>(id))) reference.end_tokens.push_back(id);
  }
  for (const Prompt& prompt : prompts) {
    ASSIGN_OR_RETURN(ReferenceSequence sequence,
                     Decode(model.get(), pool.get(), prompt, !ids_only));
    std::string text;
    for (uint32_t id : sequence.ids) {
      char piece[256];
      const int bytes =
          llama_token_to_piece(vocab, static_cast<llama_token>(id), piece, sizeof(piece), 0, true);
      text.append(piece, static_cast<size_t>(std::max(0, bytes)));
    }
    std::fprintf(stderr, "%s: %zu + %zu tokens: %s\n", prompt.name.c_str(),
                 sequence.prompt_ids.size(), sequence.ids.size(), text.c_str());
    reference.sequences.push_back(std::move(sequence));
  }
  return ids_only ? WriteIds(reference, out_path) : WriteDump(reference, out_path);
}

}  // namespace
}  // namespace tandem::exact

int main(int argc, char** argv) {
  std::string model, prompts, out;
  bool ids_only = false;
  CLI::App app("Decodes prompts with libllama, each alone, in the reference class.");
  app.add_option("--model", model, "GGUF file")->required();
  app.add_option("--prompts", prompts, "JSON file of prompts")->required();
  app.add_option("--out", out, "file to write")->required();
  app.add_flag("--ids-only", ids_only, "write token ids as JSON instead of ids and logits");
  CLI11_PARSE(app, argc, argv);
  const absl::Status status = tandem::exact::Run(model, prompts, out, ids_only);
  if (status.ok()) return 0;
  std::fprintf(stderr, "reference_dump: %s\n", status.ToString().c_str());
  return 1;
}
