// tandem-backend-conformance NAME: the suite on a backend of Tandem's own, on this machine, with a
// real model. What `tandemctl conformance backend` runs.

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <string>
#include <vector>

#include "scheduler/base/status.h"
#include "services/runtime/log.h"
#include "tests/exact/conformance_table.h"
#include "tests/exact/ffn_conformance.h"
#include "workers/backend/ggml/device_list.h"
#include "workers/backend/ggml/ggml_backend.h"
#include "workers/backend/ggml/gguf_model.h"
#include "workers/daemon/make_backend.h"

namespace tandem::exact {
namespace {

constexpr char kEmulated[] = "emulated";

struct Options {
  std::string name, model;
};
Options& TheOptions() {
  static Options options;
  return options;
}

absl::StatusOr<std::unique_ptr<StageBackend>> MakeOnDevice(const std::string& device,
                                                           std::set<Stage> stages,
                                                           uint32_t kv_blocks,
                                                           uint32_t block_tokens,
                                                           const ShardRequest& shard) {
  if (stages == std::set<Stage>{Stage::kFfn}) kv_blocks = 0;
  return MakeGgmlBackend(
      {TheOptions().model, std::move(stages), kv_blocks, block_tokens, 1, shard, device});
}

// A small device of the catalog, whose numerics are the hash chain's.
absl::StatusOr<std::unique_ptr<StageBackend>> MakeEmulated(const std::set<Stage>& stages,
                                                           uint32_t kv_blocks,
                                                           uint32_t block_tokens) {
  static RealTimeSource time;
  WorkerConfig config;
  for (const Stage stage : stages) config.stages.emplace_back(ToString(stage));
  config.backend = kEmulated;
  config.device = "h100-sxm";
  config.model_shape = "smollm2-135m";
  config.kv_tokens = kv_blocks * block_tokens;
  config.block_tokens = block_tokens;
  RETURN_IF_ERROR(CheckWorkerConfig(config));
  ASSIGN_OR_RETURN(BuiltBackend built, MakeBackend(config, time));
  return std::move(built.backend);
}

std::unique_ptr<StageBackend> OrFail(absl::StatusOr<std::unique_ptr<StageBackend>> made) {
  EXPECT_TRUE(made.ok()) << made.status();
  return made.ok() ? *std::move(made) : nullptr;
}

BackendCase TheCase() {
  if (TheOptions().name == kEmulated) {
    return {kEmulated, [](std::set<Stage> stages, uint32_t kv_blocks, uint32_t block_tokens) {
              return OrFail(MakeEmulated(stages, kv_blocks, block_tokens));
            }};
  }
  const std::string device = TheOptions().name;
  return {
      device,
      [=](std::set<Stage> stages, uint32_t kv_blocks, uint32_t block_tokens) {
        return OrFail(MakeOnDevice(device, std::move(stages), kv_blocks, block_tokens, {}));
      },
      [=](const ShardRequest& shard) { return MakeOnDevice(device, {Stage::kFfn}, 0, 16, shard); },
      [](uint32_t kv_blocks, uint32_t block_tokens) {
        return OrFail(MakeOnDevice("cpu", {Stage::kPrefill, Stage::kAttention, Stage::kFfn},
                                   kv_blocks, block_tokens, {}));
      }};
}

std::vector<BackendCase> TheOne() { return {TheCase()}; }
std::vector<BackendCase> TheOneThatCanBeCut() {
  return TheCase().make_shard ? TheOne() : std::vector<BackendCase>();
}

INSTANTIATE_TEST_SUITE_P(Own, BackendConformance, testing::ValuesIn(TheOne()));
INSTANTIATE_TEST_SUITE_P(Own, FfnConformance, testing::ValuesIn(TheOne()));
INSTANTIATE_TEST_SUITE_P(Own, ShardConformance, testing::ValuesIn(TheOneThatCanBeCut()));

absl::Status Check(const Options& options) {
  if (options.name == kEmulated) return absl::OkStatus();
  if (!ggml_cpu::FindDevice(options.name).ok()) {
    std::string names;
    for (const auto& device : ggml_cpu::ListDevices()) absl::StrAppend(&names, device.name, ", ");
    return absl::NotFoundError(absl::StrCat("no backend '", options.name,
                                            "' on this machine; there is: ", names, kEmulated));
  }
  return ggml_cpu::GgufModel::Open(options.model).status();
}

int Main(int argc, char** argv) {
  Options& options = TheOptions();
  std::string only;
  CLI::App app("Holds a backend of Tandem's own against what every StageBackend must do",
               "tandem-backend-conformance");
  app.add_option("NAME", options.name,
                 "A device of ggml's (tandem-worker --device list), or emulated")
      ->required();
  app.add_option("--model", options.model, "GGUF file; none for emulated");
  app.add_option("--case", only, "Only cases with this in their name");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  ggml_cpu::QuietLog();
  InitLog({.daemon = "tandem-backend-conformance", .level = spdlog::level::warn});
  if (const absl::Status status = Check(options); !status.ok()) {
    std::cerr << "tandem-backend-conformance: " << status.message() << "\n";
    return 2;
  }
  std::string filter =
      only.empty() ? "--gtest_filter=*" : absl::StrCat("--gtest_filter=*", only, "*");
  std::vector<char*> flags = {argv[0], filter.data(), nullptr};
  int count = static_cast<int>(flags.size()) - 1;
  testing::InitGoogleTest(&count, flags.data());  // makes the cases
  const int exit_code = RunConformance();
  if (testing::UnitTest::GetInstance()->test_to_run_count() > 0) return exit_code;
  std::cerr << "tandem-backend-conformance: no case has '" << only << "' in its name\n";
  return 2;
}

}  // namespace
}  // namespace tandem::exact

int main(int argc, char** argv) { return tandem::exact::Main(argc, argv); }
