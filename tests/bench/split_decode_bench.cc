// What does cutting decode between attention and FFN cost, before any network? libllama's own
// decode against ours through StageBackend, in one process: same model, one compute thread each,
// the same batch, blocks of steps in turn. Prints the 10th percentile of a step's wall time for
// each, and whether every logit of every step had the same bits.

#include <absl/strings/str_cat.h>

#include <time.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "ggml-cpu.h"
#include "llama.h"
#include "scheduler/base/status.h"
#include "tests/exact/prompt_set.h"
#include "tests/exact/split_driver.h"
#include "workers/backend/ggml/ggml_backend.h"
#include "workers/backend/sampler.h"

namespace tandem::exact {
namespace {

constexpr uint32_t kBlockTokens = 16;
constexpr uint32_t kKvBlocks = 1024;
constexpr uint32_t kPrefillTokens = 32;
constexpr uint32_t kStepsInTurn = 4;  // steps of one side before the other's turn
constexpr uint32_t kWarmupSteps = 4;  // builds graphs, touches pages
constexpr double kPercentile = 0.10;

// CPU time of this thread: what a busy machine disturbs least.
double CpuNow() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

double Now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

struct Free {
  void operator()(llama_model* model) const { llama_model_free(model); }
  void operator()(llama_context* context) const { llama_free(context); }
  void operator()(ggml_threadpool* pool) const { ggml_threadpool_free(pool); }
};

// One side of the comparison: B sequences, decoded together.
class Side {
 public:
  virtual ~Side() = default;
  virtual absl::Status Step() = 0;
  // [batch, vocabulary] of the last step
  virtual absl::Span<const float> logits() = 0;
  std::vector<double> seconds, cpu_seconds;  // of each timed step
};

class LlamaSide final : public Side {
 public:
  LlamaSide(llama_model* model, uint32_t threads, const std::vector<std::vector<TokenId>>& prompts,
            uint32_t steps)
      : vocabulary_(static_cast<size_t>(llama_vocab_n_tokens(llama_model_get_vocab(model)))) {
    size_t longest = 0;
    for (const auto& prompt : prompts) longest = std::max(longest, prompt.size());
    llama_context_params params = llama_context_default_params();
    params.n_seq_max = static_cast<uint32_t>(prompts.size());
    params.n_ctx = static_cast<uint32_t>((longest + steps + 255) / 256 * 256 * prompts.size());
    params.n_batch = 512;
    params.n_ubatch = kPrefillTokens;
    params.n_threads = params.n_threads_batch = static_cast<int>(threads);
    params.flash_attn_type = LLAMA_FLASH_ATTN_TYPE_ENABLED;
    params.no_perf = true;
    context_.reset(llama_init_from_model(model, params));
    ggml_threadpool_params pool = ggml_threadpool_params_default(static_cast<int>(threads));
    pool_.reset(ggml_threadpool_new(&pool));
    llama_attach_threadpool(context_.get(), pool_.get(), pool_.get());
    batch_ = llama_batch_init(512, 0, 1);
    for (size_t i = 0; i < prompts.size(); ++i) Prefill(static_cast<int>(i), prompts[i]);
  }
  ~LlamaSide() override { llama_batch_free(batch_); }

  absl::Status Step() override {
    batch_.n_tokens = 0;
    for (size_t i = 0; i < last_.size(); ++i)
      Add(last_[i], position_[i]++, static_cast<int>(i), true);
    if (llama_decode(context_.get(), batch_) != 0)
      return absl::InternalError("llama_decode failed");
    for (size_t i = 0; i < last_.size(); ++i)
      last_[i] = ArgMax(logits().subspan(i * vocabulary_, vocabulary_));
    return absl::OkStatus();
  }
  absl::Span<const float> logits() override {
    return {llama_get_logits(context_.get()), last_.size() * vocabulary_};
  }

 private:
  void Add(TokenId token, uint32_t position, int sequence, bool wanted) {
    const int at = batch_.n_tokens++;
    batch_.token[at] = static_cast<llama_token>(token);
    batch_.pos[at] = static_cast<llama_pos>(position);
    batch_.n_seq_id[at] = 1;
    batch_.seq_id[at][0] = sequence;
    batch_.logits[at] = wanted;
  }
  // All but the last token, as ours does.
  void Prefill(int sequence, const std::vector<TokenId>& prompt) {
    batch_.n_tokens = 0;
    for (uint32_t i = 0; i + 1 < prompt.size(); ++i) Add(prompt[i], i, sequence, false);
    if (batch_.n_tokens > 0 && llama_decode(context_.get(), batch_) != 0) std::abort();
    last_.push_back(prompt.back());
    position_.push_back(static_cast<uint32_t>(prompt.size()) - 1);
  }

  size_t vocabulary_;
  std::unique_ptr<llama_context, Free> context_;
  std::unique_ptr<ggml_threadpool, Free> pool_;
  llama_batch batch_{};
  std::vector<TokenId> last_;
  std::vector<uint32_t> position_;
};

class SplitSide final : public Side {
 public:
  SplitSide(GgmlBackend* attention, GgmlBackend* ffn,
            const std::vector<std::vector<TokenId>>& prompts)
      : attention_(attention),
        driver_({attention, attention, ffn}, kKvBlocks, kBlockTokens, 1),
        sequences_(prompts.size()) {
    for (size_t i = 0; i < prompts.size(); ++i) {
      sequences_[i].prompt_ids = prompts[i];
      sequences_[i].sampling.temperature = 0;
      batch_.push_back(&sequences_[i]);
    }
  }
  absl::Status Prefill() {
    for (Sequence& sequence : sequences_)
      RETURN_IF_ERROR(driver_.Prefill(sequence, kPrefillTokens));
    return absl::OkStatus();
  }
  absl::Status Step() override { return driver_.Step(batch_); }
  absl::Span<const float> logits() override { return attention_->last_logits(); }

 private:
  GgmlBackend* attention_;
  SplitDriver driver_;
  std::vector<Sequence> sequences_;
  std::vector<Sequence*> batch_;
};

absl::Status Timed(Side& side) {
  const double begin = Now(), cpu_begin = CpuNow();
  RETURN_IF_ERROR(side.Step());
  side.cpu_seconds.push_back(CpuNow() - cpu_begin);
  side.seconds.push_back(Now() - begin);
  return absl::OkStatus();
}

double Percentile(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[static_cast<size_t>(kPercentile * static_cast<double>(values.size() - 1))];
}

// Steps all sides in turn and compares their logits with the first's. Returns the steps whose bits
// were all equal.
absl::StatusOr<uint32_t> Race(const std::vector<Side*>& sides, uint32_t steps) {
  uint32_t equal = 0;
  for (Side* side : sides) {
    for (uint32_t i = 0; i < kWarmupSteps; ++i) RETURN_IF_ERROR(side->Step());
  }
  for (uint32_t done = 0; done < steps; done += kStepsInTurn) {
    std::vector<std::vector<float>> logits(kStepsInTurn);
    std::vector<bool> same(kStepsInTurn, true);
    for (Side* side : sides) {
      for (uint32_t i = 0; i < kStepsInTurn; ++i) {
        RETURN_IF_ERROR(Timed(*side));
        const absl::Span<const float> now = side->logits();
        if (side == sides[0]) {
          logits[i].assign(now.begin(), now.end());
        } else if (std::memcmp(now.data(), logits[i].data(), now.size() * sizeof(float)) != 0) {
          same[i] = false;
        }
      }
    }
    equal += static_cast<uint32_t>(std::count(same.begin(), same.end(), true));
  }
  return equal;
}

struct Options {
  std::string model, prompts = TANDEM_PROMPTS;  // tests/exact/prompts.json
  std::vector<uint32_t> batches = {1, 8, 32};
  uint32_t steps = 64;
  uint32_t threads = 1;
  double gate = 0;
};

absl::StatusOr<std::vector<std::vector<TokenId>>> MakePrompts(const std::string& path,
                                                              const llama_vocab* vocab,
                                                              uint32_t batch) {
  ASSIGN_OR_RETURN(const std::vector<Prompt> prompts, ReadPrompts(path));
  std::vector<std::vector<TokenId>> out;
  for (uint32_t i = 0; out.size() < batch; ++i) {
    const std::string& text = prompts[i % prompts.size()].text;
    std::vector<llama_token> tokens(text.size() + 8);
    const int count = llama_tokenize(vocab, text.data(), static_cast<int>(text.size()),
                                     tokens.data(), static_cast<int>(tokens.size()), true, true);
    if (count > 20 && count < 100)
      out.emplace_back(tokens.begin(), tokens.begin() + count);  // short chats
    if (i > 64 * batch)
      return absl::InvalidArgumentError(absl::StrCat(path, ": no prompt of 20 to 100 tokens"));
  }
  return out;
}

absl::Status Run(const Options& options) {
  llama_log_set(
      [](ggml_log_level level, const char* text, void*) {
        if (level >= GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
      },
      nullptr);
  std::unique_ptr<llama_model, Free> model(
      llama_model_load_from_file(options.model.c_str(), llama_model_default_params()));
  if (model == nullptr)
    return absl::InvalidArgumentError(absl::StrCat("cannot load ", options.model));
  const std::set<Stage> all = {Stage::kPrefill, Stage::kAttention, Stage::kFfn};
  ASSIGN_OR_RETURN(auto whole, GgmlBackend::Create(
                                   {options.model, all, kKvBlocks, kBlockTokens, options.threads}));
  ASSIGN_OR_RETURN(auto prefill, GgmlBackend::Create({options.model, all, kKvBlocks, kBlockTokens,
                                                      options.threads}));
  ASSIGN_OR_RETURN(auto ffn, GgmlBackend::Create(
                                 {options.model, {Stage::kFfn}, 0, kBlockTokens, options.threads}));

  std::printf("p10 of %u steps, %u compute thread(s); numerics %s\n", options.steps,
              options.threads, whole->info().numerics.attention.c_str());
  std::printf(
      "Speed is libllama's time over ours, by wall / by CPU time of the thread.\n"
      "| batch | libllama ms (tok/s) | split, one backend | speed | split, two backends | speed | "
      "bits equal |\n|---|---|---|---|---|---|---|\n");
  bool passed = true;
  for (const uint32_t batch : options.batches) {
    ASSIGN_OR_RETURN(const auto prompts,
                     MakePrompts(options.prompts, llama_model_get_vocab(model.get()), batch));
    LlamaSide llama(model.get(), options.threads, prompts, options.steps + kWarmupSteps);
    SplitSide one(whole.get(), whole.get(), prompts), two(prefill.get(), ffn.get(), prompts);
    RETURN_IF_ERROR(one.Prefill());
    RETURN_IF_ERROR(two.Prefill());
    ASSIGN_OR_RETURN(const uint32_t equal, Race({&llama, &one, &two}, options.steps));
    const double t = Percentile(llama.seconds), t_one = Percentile(one.seconds),
                 t_two = Percentile(two.seconds);
    const double cpu = Percentile(llama.cpu_seconds);
    std::printf("| %u | %.2f (%.0f) | %.2f | %.3f / %.3f | %.2f | %.3f / %.3f | %u of %u |\n",
                batch, 1e3 * t, batch / t, 1e3 * t_one, t / t_one,
                cpu / Percentile(one.cpu_seconds), 1e3 * t_two, t / t_two,
                cpu / Percentile(two.cpu_seconds), equal, options.steps);
    std::fflush(stdout);
    passed = passed && equal == options.steps && t / t_one >= options.gate;
  }
  return passed
             ? absl::OkStatus()
             : absl::InternalError(absl::StrCat("bits differ, or a speed is below ", options.gate));
}

}  // namespace
}  // namespace tandem::exact

int main(int argc, char** argv) {
  tandem::exact::Options options;
  CLI::App app("Split decode through StageBackend against libllama's own decode.");
  app.add_option("model", options.model, "GGUF file")->required();
  app.add_option("--prompts", options.prompts, "JSON file of prompts")->capture_default_str();
  app.add_option("--batch", options.batches, "batch sizes");
  app.add_option("--steps", options.steps, "timed steps of each side, a multiple of 4")
      ->check(CLI::Range(4, 4096));
  app.add_option("--threads", options.threads, "compute threads of each side");
  app.add_option("--gate", options.gate, "fail when a speed against libllama is below this");
  CLI11_PARSE(app, argc, argv);
  options.steps -= options.steps % 4;
  const absl::Status status = tandem::exact::Run(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "split_decode_bench: %s\n", status.ToString().c_str());
  return 1;
}
