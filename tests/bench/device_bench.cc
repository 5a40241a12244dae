// Goal: what a device that the host cannot address costs our backend, and what crosses to it: the
// fake GPU, which computes on this CPU, against the CPU itself. Method: two whole backends of one
// model decode the same sequences in turns; tokens a second and copies a step, by the backend's own
// count.

#include <absl/strings/str_format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/base/status.h"
#include "tests/exact/split_driver.h"
#include "tests/fakes/fake_gpu.h"
#include "workers/backend/ggml/device_backend.h"
#include "workers/backend/ggml/ggml_backend.h"

namespace tandem::exact {
namespace {

constexpr uint32_t kPromptTokens = 32, kChunk = 32, kWarmUpSteps = 3, kStepsInTurn = 4;
constexpr uint64_t kSeed = 20261128;

struct Options {
  std::string model;
  uint32_t batch = 8, steps = 48;
};

// One backend, its driver, and the sequences that it decodes.
struct Side {
  Side(StageBackend& backend, uint32_t blocks, uint32_t block_tokens, uint32_t batch)
      : driver({&backend, &backend, &backend}, blocks, block_tokens, kSeed), sequences(batch) {
    Random random(kSeed);
    for (Sequence& sequence : sequences) {
      sequence.sampling.temperature = 0;
      for (uint32_t i = 0; i < kPromptTokens; ++i)
        sequence.prompt_ids.push_back(
            static_cast<TokenId>(random.Below(backend.info().dimensions.vocabulary)));
      all.push_back(&sequence);
    }
  }
  absl::Status Prefill() {
    for (Sequence& sequence : sequences) RETURN_IF_ERROR(driver.Prefill(sequence, kChunk));
    return absl::OkStatus();
  }
  absl::Status Steps(uint32_t count, bool timed) {
    for (uint32_t i = 0; i < count; ++i) {
      const auto begin = std::chrono::steady_clock::now();
      RETURN_IF_ERROR(driver.Step(all));
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      if (timed) seconds.push_back(took.count());
    }
    return absl::OkStatus();
  }
  double Median() {
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
  }

  SplitDriver driver;
  std::vector<Sequence> sequences;
  std::vector<Sequence*> all;
  std::vector<double> seconds;
};

absl::Status Run(const Options& options) {
  const std::string device = test::DeviceUnderTest();
  const std::set<Stage> stages = {Stage::kPrefill, Stage::kAttention, Stage::kFfn};
  const uint32_t slots = options.batch + 1;
  ASSIGN_OR_RETURN(auto gpu,
                   GgmlDeviceBackend::Create({options.model, stages, slots, 1024, 1, {}, device}));
  ASSIGN_OR_RETURN(auto cpu, GgmlBackend::Create({options.model, stages, slots * 64, 16, 1, {}}));
  Side on_cpu(*cpu, slots * 64, 16, options.batch), on_gpu(*gpu, slots, 1024, options.batch);
  for (Side* side : {&on_cpu, &on_gpu}) {
    RETURN_IF_ERROR(side->Prefill());
    RETURN_IF_ERROR(side->Steps(kWarmUpSteps, false));
  }
  const ggml_cpu::TransferCounts before = gpu->transfers();
  for (uint32_t done = 0; done < options.steps; done += kStepsInTurn) {
    for (Side* side : {&on_cpu, &on_gpu}) RETURN_IF_ERROR(side->Steps(kStepsInTurn, true));
  }
  const ggml_cpu::TransferCounts& after = gpu->transfers();
  bool equal = true;
  for (uint32_t i = 0; i < options.batch; ++i)
    equal = equal && on_cpu.sequences[i].ids == on_gpu.sequences[i].ids;
  const double cpu_s = on_cpu.Median(), gpu_s = on_gpu.Median(), steps = options.steps;
  absl::PrintF(
      "| batch | CPU ms (tok/s) | device ms (tok/s) | of CPU | to the device a step | from it | "
      "whole rows of logits | tokens |\n|---|---|---|---|---|---|---|---|\n"
      "| %u | %.2f (%.1f) | %.2f (%.1f) | %.3f | %.1f copies, %.0f bytes | %.1f copies, %.0f bytes "
      "| %.2f | %s |\n",
      options.batch, 1e3 * cpu_s, options.batch / cpu_s, 1e3 * gpu_s, options.batch / gpu_s,
      cpu_s / gpu_s, static_cast<double>(after.uploads - before.uploads) / steps,
      static_cast<double>(after.upload_bytes - before.upload_bytes) / steps,
      static_cast<double>(after.downloads - before.downloads) / steps,
      static_cast<double>(after.download_bytes - before.download_bytes) / steps,
      static_cast<double>(after.full_logit_rows - before.full_logit_rows) / steps,
      equal ? "equal" : "DIFFER");
  // A real device is of another numerics class, and may choose otherwise.
  return equal || !test::DeviceIsFake() ? absl::OkStatus()
                                        : absl::InternalError("the tokens differ");
}

}  // namespace
}  // namespace tandem::exact

int main(int argc, char** argv) {
  tandem::exact::Options options;
  CLI::App app("TANDEM_DEVICE, or the fake GPU, against the CPU: tokens a second, copies.");
  app.add_option("model", options.model, "GGUF file")->envname("TANDEM_MODEL")->required();
  app.add_option("--batch", options.batch, "sequences")->check(CLI::Range(1, 64));
  app.add_option("--steps", options.steps, "timed steps of each side")->check(CLI::Range(4, 4096));
  CLI11_PARSE(app, argc, argv);
  options.steps -= options.steps % 4;
  const absl::Status status = tandem::exact::Run(options);
  if (status.ok()) return 0;
  std::fprintf(stderr, "device_bench: %s\n", status.ToString().c_str());
  return 1;
}
