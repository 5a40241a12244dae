#include "workers/daemon/conformance_command.h"

#include <CLI/CLI.hpp>
#include <boost/json.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>

#include "scheduler/base/status.h"
#include "services/runtime/log.h"
#include "workers/backend/ggml/ggml_backend.h"
#include "workers/conformance/ffn_suite.h"
#include "workers/rpc/frame_memory.h"

namespace tandem {
namespace {

namespace json = boost::json;

// The reference rounds rows to 8 bits (ggml's Q8_1). Against numpy's float32 its answers of
// SmolLM2's 30 layers lie up to 0.023 of a row's length apart; twice that is taken.
constexpr double kTolerance = 0.05;

struct Options {
  conformance::FfnSuiteOptions suite;
  std::string model, output;
  double patience_seconds = 10;
  uint64_t epoch = 0;
};

absl::StatusOr<json::object> Run(Options& options) {
  ASSIGN_OR_RETURN(const std::unique_ptr<StageBackend> reference,
                   MakeGgmlBackend({options.model, {Stage::kFfn}, 0, 16, 1, {}}));
  json::array cases;
  const auto on_case = [&](const conformance::CaseResult& result) {
    const bool passed = result.verdict == conformance::Verdict::kPass;
    std::fprintf(stderr, "%s %s\n", passed ? "pass" : "FAIL", result.name.c_str());
    cases.push_back({{"name", result.name},
                     {"passed", passed},
                     {"what", result.what},
                     {"first_difference", result.first_difference}});
  };
  RETURN_IF_ERROR(conformance::RunFfnSuite(options.suite, *reference, on_case).status());
  return json::object{{"address", options.suite.address},
                      {"model", options.suite.model_name},
                      {"reference", reference->info().numerics.ffn},
                      {"cases", std::move(cases)}};
}

int Write(const json::object& result, const std::string& output) {
  if (output.empty()) {
    std::cout << result << "\n";
  } else {
    std::ofstream file(output);
    file << result << "\n";
    if (!file.flush()) {
      std::cerr << "tandem-worker: cannot write " << output << "\n";
      return 1;
    }
  }
  for (const json::value& one : result.at("cases").as_array())
    if (!one.at("passed").as_bool()) return 1;
  return 0;
}

}  // namespace

int ConformanceFfnMain(int argc, const char* const* argv) {
  Options options;
  options.suite.tolerance = kTolerance;
  CLI::App app("Tests an FFN server over the A2F/F2A contract (docs/handoff.md); writes JSON",
               "tandem-worker conformance-ffn");
  app.add_option("--address", options.suite.address, "host:port of the server")->required();
  app.add_option("--model", options.model, "GGUF file that it serves: the reference")->required();
  app.add_option("--model-name", options.suite.model_name,
                 "As the server was told [the file's name without .gguf]");
  CLI::Option* const epoch =
      app.add_option("--epoch", options.epoch, "Its shard epoch [asked of it]");
  app.add_option("--patience", options.patience_seconds, "Seconds for each answer [10]")
      ->check(CLI::Range(0.01, 3600.0));
  app.add_option("--tolerance", options.suite.tolerance,
                 "How far a row may be from the reference's, as a share of its length [0.05]")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--case", options.suite.only, "Only cases with this in their name");
  app.add_option("--output", options.output, "File for the JSON [stdout]");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (options.suite.model_name.empty())
    options.suite.model_name = std::filesystem::path(options.model).stem().string();
  if (epoch->count() > 0) options.suite.epoch = options.epoch;
  options.suite.patience = Duration::FromSeconds(options.patience_seconds);
  KeepFrameMemory();
  InitLog({.daemon = "tandem-worker", .level = spdlog::level::warn});
  const absl::StatusOr<json::object> result = Run(options);
  if (result.ok()) return Write(*result, options.output);
  std::cerr << "tandem-worker: " << result.status().message() << "\n";
  return 1;
}

}  // namespace tandem
