#include "services/ctl/emulation.h"

#include <absl/strings/match.h>
#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_join.h>
#include <absl/strings/str_split.h>

#include <filesystem>

#include "scheduler/base/status.h"
#include "scheduler/cost/cost_table.h"
#include "scheduler/model/catalog.h"
#include "scheduler/model/dtype.h"
#include "scheduler/view/worker.h"
#include "services/runtime/catalog_files.h"

namespace tandem::ctl {
namespace {

constexpr absl::string_view kModelNumerics = "model:";

absl::StatusOr<DeviceSet> FindSet(const std::string& name) {
  std::vector<absl::string_view> names;
  for (const DeviceSet& set : DeviceSets()) {
    if (set.name == name) return set;
    names.push_back(set.name);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("devices: no set '", name, "'; there are ", absl::StrJoin(names, ", ")));
}

absl::string_view DeviceFor(const DeviceSet& set, const WorkerSet& workers) {
  if (workers.stages == "prefill") return set.prefill;
  if (workers.stages == "ffn") return set.ffn;
  return set.attention;
}

// The worker's flag.
absl::StatusOr<std::string> WorkersNumerics(const ClusterConfig& config) {
  const std::string& given = config.emulation.numerics;
  if (given == "synthetic") return given;
  if (given == "model") return absl::StrCat(kModelNumerics, config.model);
  const std::string file = NumericsFile(config.emulation);
  if (!file.empty())
    return absl::StrCat(kModelNumerics,
                        std::filesystem::absolute(file).lexically_normal().string());
  return absl::InvalidArgumentError(
      absl::StrCat("numerics: '", given, "' is neither synthetic, model nor model:FILE.gguf"));
}

// What a worker would find in its catalog, found here: else it is told by the logs of workers that
// died.
absl::Status CheckAgainstCatalog(const WorkerSet& workers) {
  std::vector<std::string> directories;
  if (const auto own = workers.flags.find("catalog"); own != workers.flags.end())
    directories = absl::StrSplit(own->second, ',');
  directories.push_back(InstalledCatalog());
  ASSIGN_OR_RETURN(const model::Catalog catalog, LoadCatalog(directories));
  const auto named = [&](const char* flag, const absl::Status& status) {
    return absl::InvalidArgumentError(
        absl::StrCat("pool '", workers.pool, "': ", flag, ": ", status.message()));
  };
  const absl::StatusOr<model::ModelShape> shape =
      catalog.FindModel(workers.flags.at("model-shape"));
  if (!shape.ok()) return named("model_shape", shape.status());
  const absl::StatusOr<model::Device> device = catalog.FindDevice(workers.flags.at("device"));
  if (!device.ok()) return named("device", device.status());
  const absl::StatusOr<model::Dtype> weights = model::ParseDtype(workers.flags.at("weights"));
  if (!weights.ok()) return named("weights", weights.status());
  cost::CostOptions options;
  options.precision.weights = *weights;
  const absl::Status together = cost::CostTable::Create(*device, *shape, options).status();
  return together.ok() ? together : named("weights", together);
}

}  // namespace

const std::vector<DeviceSet>& DeviceSets() {
  static const auto* const sets = new std::vector<DeviceSet>{
      {"h100", "h100-x8", "h100-x8", "h100-x8", "fp8", "NVIDIA HGX H100"},
      {"h200", "h200-x8", "h200-x8", "h200-x8", "fp8", "NVIDIA HGX H200"},
      {"b200", "b200-x8", "b200-x8", "b200-x8", "fp8", "NVIDIA HGX B200"},
      {"tpu-v5e", "tpu-v5e-x8", "tpu-v5e-x8", "tpu-v5e-x8", "int8", "Google TPU v5e"},
      {"tpu-v5p", "tpu-v5p-x8", "tpu-v5p-x8", "tpu-v5p-x8", "bf16", "Google TPU v5p"},
      {"h100-pair", "h100-x2", "h100-x2", "h100-x2", "fp8", "pairs of H100"},
      {"rubin-lpx", "vera-rubin-x8", "vera-rubin-x8", "groq3-lpx-rack", "fp8",
       "NVIDIA Vera Rubin with a Groq 3 LPX rack"},
      {"tpu-lpx", "tpu-v5p-x8", "tpu-v5p-x8", "groq3-lpx-rack", "fp8",
       "Google TPU v5p with a Groq 3 LPX rack"},
      {"gpu-cs3", "h100-x8", "h100-x8", "cs-3-x4", "bf16",
       "GPUs with Cerebras CS-3 as the decode-FFN part"},
      {"trainium-cs3", "trainium2-x16", "cs-3-x4", "cs-3-x4", "bf16",
       "AWS Trainium prefill with Cerebras decode"},
      {"groq", "groq-lpu-v1-x576", "groq-lpu-v1-x576", "groq-lpu-v1-x576", "int8",
       "Groq LPU alone"},
      {"cs-3", "cs-3", "cs-3", "cs-3", "bf16", "Cerebras CS-3 alone, for an 8B"},
      {"cs-3-x4", "cs-3-x4", "cs-3-x4", "cs-3-x4", "bf16", "four Cerebras CS-3, for a 70B"},
  };
  return *sets;
}

absl::StatusOr<double> ParseTimeScale(const std::string& text) {
  if (text == "auto") return 0.0;
  double scale = 0;
  if (absl::SimpleAtod(text, &scale) && scale > 0 && scale <= kMaxTimeScale) return scale;
  return absl::InvalidArgumentError(absl::StrCat(
      "time_scale: '", text, "' is neither auto nor a number in (0, ", kMaxTimeScale, "]"));
}

std::string NumericsFile(const Emulation& emulation) {
  const absl::string_view numerics = emulation.numerics;
  if (!absl::StartsWith(numerics, kModelNumerics)) return "";
  return std::string(numerics.substr(kModelNumerics.size()));
}

absl::Status EmulateCluster(ClusterConfig& config) {
  const Emulation& wanted = config.emulation;
  if (wanted.model_shape.empty())
    return absl::InvalidArgumentError("emulated: model_shape is missing");
  ASSIGN_OR_RETURN(const double scale, ParseTimeScale(wanted.time_scale));
  ASSIGN_OR_RETURN(const std::string numerics, WorkersNumerics(config));
  DeviceSet set = {};
  if (!wanted.devices.empty()) {
    ASSIGN_OR_RETURN(set, FindSet(wanted.devices));
  }
  const std::string weights = !wanted.weights.empty()
                                  ? wanted.weights
                                  : std::string(set.weights.empty() ? "fp8" : set.weights);
  for (WorkerSet& workers : config.workers) {
    if (!wanted.devices.empty()) workers.flags.emplace("device", DeviceFor(set, workers));
    if (!workers.flags.contains("device")) {
      return absl::InvalidArgumentError(absl::StrCat(
          "workers: pool '", workers.pool,
          "' has no device: name a set with emulated.devices, or its own with flags: device"));
    }
    workers.flags.emplace("backend", "emulated");
    workers.flags.emplace("model-shape", wanted.model_shape);
    workers.flags.emplace("weights", weights);
    workers.flags.emplace("numerics", numerics);
    if (!wanted.payload.empty()) workers.flags.emplace("payload", wanted.payload);
    workers.flags.emplace("perturbation", wanted.perturbation);
    RETURN_IF_ERROR(CheckAgainstCatalog(workers));
  }
  ScaleCluster(config, scale > 0 ? scale : 1);
  if (config.model_name.empty()) config.model_name = wanted.model_shape;
  return absl::OkStatus();
}

Emulation NothingGiven() {
  return {.model_shape = "",
          .devices = "",
          .weights = "",
          .time_scale = "",
          .perturbation = "",
          .numerics = "",
          .payload = ""};
}

void Override(Emulation& emulation, const Emulation& given) {
  for (std::string Emulation::*field :
       {&Emulation::model_shape, &Emulation::devices, &Emulation::weights, &Emulation::time_scale,
        &Emulation::perturbation, &Emulation::numerics, &Emulation::payload}) {
    if (!(given.*field).empty()) emulation.*field = given.*field;
  }
}

void ScaleCluster(ClusterConfig& config, double time_scale) {
  for (WorkerSet& workers : config.workers) workers.flags["time-scale"] = absl::StrCat(time_scale);
}

}  // namespace tandem::ctl
