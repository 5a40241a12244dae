// tandemctl calibrate: a chip of the catalog for this machine, from its backend's own timed calls.

#include <absl/strings/str_cat.h>
#include <absl/time/time.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "scheduler/base/status.h"
#include "services/ctl/calibration.h"
#include "services/ctl/commands.h"
#include "services/ctl/run_program.h"
#include "services/ctl/start_cluster.h"
#include "services/runtime/real_time.h"

namespace tandem::ctl {
namespace {

namespace fs = std::filesystem;

constexpr char kMeasurements[] = "measurements";
constexpr uintmax_t kMaxMeasurementBytes = 16 << 20;

struct Options {
  CalibrationOptions calibration;
  std::string model, out = "calibration", from, catalog, bin_dir;
  bool quick = false;
};

absl::Status CannotWrite(const std::string& path, const std::string& why) {
  return absl::FailedPreconditionError(absl::StrCat("cannot write ", path, ": ", why));
}

// Whole or not at all: a reader never sees half a file.
absl::Status WriteFile(const std::string& path, const std::string& text) {
  const std::string part = absl::StrCat(path, ".part");
  std::ofstream file(part, std::ios::trunc);
  file << text;
  file.close();
  if (!file) return CannotWrite(part, std::generic_category().message(errno));
  std::error_code error;
  fs::rename(part, path, error);
  return error ? CannotWrite(path, error.message()) : absl::OkStatus();
}

// Before a minute of measuring is spent.
absl::Status MakeFolders(const std::string& out) {
  for (const char* folder : {"chips", kMeasurements}) {
    std::error_code error;
    const std::string path = absl::StrCat(out, "/", folder);
    fs::create_directories(path, error);
    if (error) return CannotWrite(path, error.message());
    if (access(path.c_str(), W_OK) != 0)
      return CannotWrite(path, std::generic_category().message(errno));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadWhole(const std::string& path) {
  std::error_code error;
  const uintmax_t size = fs::file_size(path, error);
  if (error) return absl::NotFoundError(absl::StrCat("cannot read ", path, ": ", error.message()));
  if (size > kMaxMeasurementBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": ", size, " bytes; a measurement has at most ", kMaxMeasurementBytes));
  }
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file) return absl::NotFoundError(absl::StrCat("cannot read ", path));
  return text.str();
}

// Runs the worker's microbenchmark, which tells its progress on stderr, into `file`.
absl::Status Measure(const Options& options, const std::string& model, const std::string& file) {
  std::vector<std::string> arguments = {"microbench", "--model", model, "--output", file};
  if (options.quick) arguments.emplace_back("--quick");
  ASSIGN_OR_RETURN(const int exit_code, RunProgram(options.bin_dir, "tandem-worker", arguments));
  if (exit_code == 0) return absl::OkStatus();
  return absl::UnavailableError(absl::StrCat("tandem-worker microbench ended with exit code ",
                                             exit_code, "; it said why above"));
}

absl::StatusOr<std::string> ModelFile(const Options& options) {
  const std::string model = options.model.empty() ? DefaultModel() : options.model;
  if (fs::is_regular_file(model)) return fs::absolute(model).lexically_normal().string();
  return absl::NotFoundError(
      absl::StrCat("no model ", model, ": name a GGUF file with --model, or run ./dev setup"));
}

absl::Status Calibrate(Options options) {
  ASSIGN_OR_RETURN(const model::Catalog catalog, LoadCatalogWith(options.catalog));
  std::string file = options.from;
  if (file.empty()) {
    ASSIGN_OR_RETURN(const std::string model, ModelFile(options));
    RETURN_IF_ERROR(MakeFolders(options.out));
    file = absl::StrCat(options.out, "/", kMeasurements, "/", options.calibration.name, ".json");
    std::printf("timing the calls of %s%s\n", model.c_str(),
                options.quick ? ", quick: some ten seconds" : ": a minute or two");
    std::fflush(stdout);
    RETURN_IF_ERROR(Measure(options, model, file));
  } else {
    RETURN_IF_ERROR(MakeFolders(options.out));
  }
  ASSIGN_OR_RETURN(const std::string text, ReadWhole(file));
  ASSIGN_OR_RETURN(const Measurement measurement, ReadMeasurement(text, file));
  options.calibration.date =
      absl::FormatTime("%Y-%m-%d", absl::FromUnixNanos(UnixNanoseconds()), absl::UTCTimeZone());
  ASSIGN_OR_RETURN(const CalibrationReport report,
                   MakeCalibration(measurement, catalog, options.calibration));
  std::printf("%s\n", CalibrationText(report).c_str());
  for (const CalibratedChip& calibrated : report.chips) {
    const std::string path = absl::StrCat(options.out, "/chips/", calibrated.chip.name, ".yaml");
    RETURN_IF_ERROR(WriteFile(path, ChipYaml(calibrated.chip)));
    std::printf("wrote %s\n", path.c_str());
  }
  std::printf("tandemctl catalog chip %s --catalog %s shows it\n", options.calibration.name.c_str(),
              options.out.c_str());
  return absl::OkStatus();
}

}  // namespace

void AddCalibrate(CLI::App& parent, int& exit_code) {
  auto options = std::make_shared<Options>();
  CLI::App* command = parent.add_subcommand(
      "calibrate",
      "Times this machine's calls (attention, FFN, head, prefill, hand-off), fits the cost model's "
      "constants to them and writes chips for --catalog: NAME for a worker of all stages, "
      "NAME-attention and NAME-ffn for one of theirs, and each as -contended, beside another "
      "worker's calls. Run it while nothing else computes");
  command->add_option("--model", options->model,
                      "GGUF file to compute [TANDEM_MODEL, or SmolLM2-135M-Instruct]");
  command->add_option("--out", options->out,
                      "Folder for chips/ and measurements/; what --catalog takes [calibration]");
  command->add_option("--name", options->calibration.name, "Of the chip [local-cpu]");
  command->add_option("--model-shape", options->calibration.model_shape,
                      "The model in the catalog [the one with the file's dimensions]");
  command->add_flag("--quick", options->quick, "Fewer sizes and rounds: some ten seconds");
  command
      ->add_option("--max-spread", options->calibration.max_spread,
                   "How far apart the times of the same call may lie, as a share; above it the "
                   "machine counts as too busy [0.25]")
      ->check(CLI::NonNegativeNumber);
  command->add_option("--from", options->from,
                      "Fits an earlier measurement (measurements/NAME.json) instead of measuring");
  command->add_option("--bin-dir", options->bin_dir, "Folder of tandem-worker [tandemctl's own]");
  AddCatalogOption(*command, options->catalog);
  command->callback([options, &exit_code] { exit_code = Report(Calibrate(*options)); });
}

}  // namespace tandem::ctl
