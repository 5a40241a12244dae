// tandemctl conformance: somebody's FFN server, held against docs/handoff.md over the wire; or a
// backend of our own, held against what every StageBackend must do.
#include "services/ctl/conformance.h"

#include <absl/strings/str_cat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/commands.h"
#include "services/ctl/conformance_report.h"
#include "services/ctl/run_program.h"
#include "services/ctl/start_cluster.h"

namespace tandem::ctl {
namespace {

namespace fs = std::filesystem;

struct Options {
  std::string backend;  // conformance backend
  std::string address, model, model_name, epoch, patience, tolerance, only, bin_dir;
  bool json = false;
};

std::vector<std::string> WorkerArguments(const Options& options, const std::string& output) {
  std::vector<std::string> arguments = {"conformance-ffn", "--address", options.address, "--model",
                                        options.model,     "--output",  output};
  const auto add = [&](const char* flag, const std::string& value) {
    if (!value.empty()) arguments.insert(arguments.end(), {flag, value});
  };
  add("--model-name", options.model_name);
  add("--epoch", options.epoch);
  add("--patience", options.patience);
  add("--tolerance", options.tolerance);
  add("--case", options.only);
  return arguments;
}

// The worker's exit code, when it wrote what it saw into `file`.
absl::StatusOr<std::string> RunSuite(const Options& options, const fs::path& file) {
  ASSIGN_OR_RETURN(const int exit_code, RunProgram(options.bin_dir, "tandem-worker",
                                                   WorkerArguments(options, file.string())));
  std::ifstream stream(file);
  std::stringstream text;
  text << stream.rdbuf();
  if (stream && !text.str().empty()) return text.str();
  return absl::UnavailableError(absl::StrCat("tandem-worker conformance-ffn ended with exit code ",
                                             exit_code, "; it said why above"));
}

absl::Status Print(const Options& options, const std::string& text) {
  ASSIGN_OR_RETURN(const ConformanceReport report, ReadConformanceReport(text));
  std::fputs(options.json ? text.c_str() : ConformanceText(report).c_str(), stdout);
  if (report.failed() == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(absl::StrCat(report.address, ": ", report.failed(), " of ",
                                                    report.cases.size(), " cases failed"));
}

absl::Status Conformance(Options options) {
  if (options.model.empty()) options.model = DefaultModel();
  const fs::path file =
      fs::temp_directory_path() / absl::StrCat("tandem-conformance-", getpid(), ".json");
  std::error_code ignored;
  fs::remove(file, ignored);  // of an earlier process of that number
  const absl::StatusOr<std::string> text = RunSuite(options, file);
  fs::remove(file, ignored);
  RETURN_IF_ERROR(text.status());
  return Print(options, *text);
}

// It prints its table itself.
absl::Status BackendConformance(Options options) {
  if (options.model.empty()) options.model = DefaultModel();
  std::vector<std::string> arguments = {options.backend, "--model", options.model};
  if (!options.only.empty()) arguments.insert(arguments.end(), {"--case", options.only});
  const absl::StatusOr<int> exit_code =
      RunProgram(options.bin_dir, "tandem-backend-conformance", arguments);
  if (absl::IsNotFound(exit_code.status())) {
    return absl::NotFoundError(absl::StrCat(exit_code.status().message(),
                                            " (of a built tree, not of the image: ./dev build)"));
  }
  RETURN_IF_ERROR(exit_code.status());
  if (*exit_code == 0) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrCat(options.backend, *exit_code == 1 ? ": a case failed" : ": was not tested"));
}

void AddBackend(CLI::App& group, const std::shared_ptr<Options>& options, int& exit_code) {
  CLI::App* command = group.add_subcommand(
      "backend",
      "Holds a device of this machine against what every StageBackend must do, and prints case, "
      "verdict and first differing element. Exit code 1 when a case failed");
  command
      ->add_option("NAME", options->backend,
                   "cpu, cuda:0, ... (tandem-worker --device list), or emulated")
      ->required();
  command->add_option("--model", options->model,
                      "GGUF file that it computes with [TANDEM_MODEL, or SmolLM2-135M-Instruct]");
  command->add_option("--case", options->only, "Only cases with this in their name");
  command->add_option("--bin-dir", options->bin_dir,
                      "Folder of tandem-backend-conformance [tandemctl's own]");
  command->callback([options, &exit_code] { exit_code = Report(BackendConformance(*options)); });
}

}  // namespace

void AddConformance(CLI::App& parent, int& exit_code) {
  CLI::App* group = parent.add_subcommand(
      "conformance", "Whether a device or server of somebody else's keeps Tandem's contracts");
  group->require_subcommand(1);
  auto options = std::make_shared<Options>();
  AddBackend(*group, options, exit_code);
  CLI::App* command = group->add_subcommand(
      "ffn",
      "Makes right and wrong calls of an FFN server over the wire (docs/handoff.md), and prints "
      "case, verdict and first difference. Exit code 1 when a case failed");
  command->add_option("--address", options->address, "host:port of the server")->required();
  command->add_option("--model", options->model,
                      "GGUF file that it serves: the reference is computed from it here "
                      "[TANDEM_MODEL, or SmolLM2-135M-Instruct]");
  command->add_option("--model-name", options->model_name,
                      "As the server was told [the file's name without .gguf]");
  command->add_option("--epoch", options->epoch, "Its shard epoch [asked of it]");
  command->add_option("--patience", options->patience, "Seconds for each answer [10]");
  command->add_option("--tolerance", options->tolerance,
                      "How far a row may be from the reference's, as a share of its length [0.05]");
  command->add_option("--case", options->only, "Only cases with this in their name");
  command->add_flag("--json", options->json, "What it saw as JSON");
  command->add_option("--bin-dir", options->bin_dir, "Folder of tandem-worker [tandemctl's own]");
  command->callback([options, &exit_code] { exit_code = Report(Conformance(*options)); });
}

}  // namespace tandem::ctl
