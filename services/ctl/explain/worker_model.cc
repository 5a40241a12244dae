#include "services/ctl/explain/worker_model.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/str_format.h>
#include <absl/strings/str_join.h>
#include <absl/strings/strip.h>

#include <cmath>
#include <utility>
#include <vector>

#include "scheduler/base/status.h"
#include "services/runtime/proto_words.h"

namespace tandem::ctl {
namespace {

// Bounds of what a worker's word is taken for.
constexpr uint32_t kMaxWidth = 1 << 20;
constexpr uint32_t kMaxHeads = 1 << 16;
constexpr uint32_t kMaxVocabulary = 1 << 24;
constexpr uint32_t kBitsOfBase =
    16;  // of model::Dtype::kBf16, which loaded weights are scaled from

absl::Status CheckNumber(const v1::Registration& worker, const char* name, uint64_t value,
                         uint64_t max) {
  if (value >= 1 && value <= max) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat("worker ", worker.worker_id(), " registered ",
                                                 name, " of ", value, ": 1 to ", max, " is taken"));
}

absl::Status CheckLoaded(const v1::Registration& worker) {
  const v1::ModelDimensions& told = worker.dimensions();
  RETURN_IF_ERROR(CheckNumber(worker, "layers", told.layers(), kMaxShardLayers));
  RETURN_IF_ERROR(CheckNumber(worker, "hidden", told.hidden(), kMaxWidth));
  RETURN_IF_ERROR(CheckNumber(worker, "kv_heads", told.kv_heads(), kMaxHeads));
  RETURN_IF_ERROR(CheckNumber(worker, "head_dim", told.head_dim(), kMaxHeads));
  RETURN_IF_ERROR(CheckNumber(worker, "vocabulary", told.vocabulary(), kMaxVocabulary));
  RETURN_IF_ERROR(CheckNumber(worker, "heads", worker.loaded().heads(), kMaxHeads));
  return CheckNumber(worker, "ffn", worker.loaded().ffn(), kMaxWidth);
}

model::ModelShape ShapeOf(const v1::Registration& worker) {
  const v1::ModelDimensions& told = worker.dimensions();
  model::ModelShape shape;
  shape.name = worker.model();
  shape.layers = told.layers();
  shape.hidden = told.hidden();
  shape.heads = worker.loaded().heads();
  shape.kv_heads = told.kv_heads();
  shape.head_dim = told.head_dim();
  shape.ffn = worker.loaded().ffn();
  shape.vocabulary = told.vocabulary();
  shape.context_tokens = told.context_tokens();
  shape.tied_embeddings = worker.loaded().tied_embeddings();
  return shape;
}

// Of the FFN that the worker holds, in parameters.
double HeldFfnParameters(const v1::Registration& worker, const model::ModelShape& shape) {
  const auto layers = static_cast<uint32_t>(shape.layers);
  FfnShard shard;
  if (worker.has_shard() && CheckShard(ToShard(worker.shard()), layers).ok())
    shard = ToShard(worker.shard());
  shard = ResolveShard(shard, layers);
  double parameters = 0;
  for (uint32_t layer = shard.first_layer; layer < shard.last_layer; layer++)
    parameters += static_cast<double>(shape.ffn_parameters(layer));
  return parameters / shard.columns;
}

double BitsOf(uint64_t bytes, double parameters) {
  return parameters > 0 ? 8 * static_cast<double>(bytes) / parameters : 0;
}

// Bytes of loaded weights over those in the base format; 0 bytes: not loaded, not asked for.
double ScaleOf(double bits) { return bits > 0 ? bits / kBitsOfBase : 1; }

void ScaleToLoaded(const v1::Registration& worker, WorkerModel& out) {
  const v1::LoadedModel& loaded = worker.loaded();
  const double layers = static_cast<double>(out.shape.layers);
  const double attention = BitsOf(loaded.attention_bytes(),
                                  layers * static_cast<double>(out.shape.attention_parameters()));
  const double ffn = BitsOf(loaded.ffn_bytes(), HeldFfnParameters(worker, out.shape));
  const double head = BitsOf(loaded.head_bytes(), static_cast<double>(out.shape.head_parameters()) *
                                                      (out.shape.tied_embeddings ? 1 : 2));
  out.attention_scale = ScaleOf(attention);
  out.ffn_scale = ScaleOf(ffn);
  out.head_scale = ScaleOf(head);
  std::vector<std::string> words;
  for (const auto& [name, bits] :
       {std::pair{"attention", attention}, {"FFN", ffn}, {"head", head}}) {
    if (bits > 0) words.push_back(absl::StrFormat("%s %.3g", name, bits));
  }
  out.words.weights = absl::StrCat("bits a weight as loaded: ", absl::StrJoin(words, ", "));
}

absl::Status TakeRealModel(const v1::Registration& worker, WorkerModel& out) {
  RETURN_IF_ERROR(CheckLoaded(worker));
  out.shape = ShapeOf(worker);
  out.shape_source = absl::StrCat("as ", worker.worker_id(), " loaded it");
  const uint64_t row = worker.loaded().kv_row_bytes();
  const uint64_t elements = out.shape.kv_elements();
  if (row % elements != 0 || row / elements < 1 || row / elements > 8) {
    return absl::InvalidArgumentError(absl::StrCat("worker ", worker.worker_id(),
                                                   " registered KV "
                                                   "rows of ",
                                                   row, " bytes for ", elements, " elements"));
  }
  out.precision.kv_element_bytes = static_cast<uint32_t>(row / elements);
  ScaleToLoaded(worker, out);
  return absl::OkStatus();
}

absl::Status TakeEmulatedModel(const v1::Registration& worker, const model::Catalog& catalog,
                               WorkerModel& out) {
  ASSIGN_OR_RETURN(out.shape, catalog.FindModel(worker.model_shape()));
  out.shape_source = absl::StrCat("the catalog's ", out.shape.name);
  if (out.shape.layers != worker.dimensions().layers()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "worker ", worker.worker_id(), " emulates ", worker.model_shape(), " with ",
        worker.dimensions().layers(), " layers, of which the catalog here has ", out.shape.layers));
  }
  ASSIGN_OR_RETURN(out.precision.weights, model::ParseDtype(worker.weights()));
  out.words.weights = worker.weights();
  return absl::OkStatus();
}

// Of the chip's formats with a known peak the one whose width is nearest to the weights'.
std::optional<model::Dtype> NearestDtype(const model::Device& device, double bits) {
  std::optional<model::Dtype> nearest;
  for (const auto& [dtype, figures] : device.chip.dtypes) {
    if (!figures.peak_flops.known()) continue;
    const double off = std::abs(model::BitsPerWeight(dtype) - bits);
    if (!nearest.has_value() || off < std::abs(model::BitsPerWeight(*nearest) - bits))
      nearest = dtype;
  }
  return nearest;
}

std::string ChipText(const model::Device& device) {
  return device.count == 1 ? device.chip.name : absl::StrCat(device.count, " x ", device.chip.name);
}

absl::Status AddTable(const model::Device& device, bool emulated, WorkerModel& out) {
  cost::CostOptions options;
  options.precision = out.precision;
  if (!emulated) {
    const double bits = kBitsOfBase * out.attention_scale;
    const auto dtype = NearestDtype(device, bits);
    if (!dtype.has_value()) {
      return absl::InvalidArgumentError(
          absl::StrCat("device '", device.name, "' has no number format with a known peak"));
    }
    options.precision.weights = *dtype;
    absl::StrAppend(&out.words.weights, "; forecast as ", model::DtypeName(*dtype));
  }
  ASSIGN_OR_RETURN(out.table, cost::CostTable::Create(device, out.shape, options));
  out.words.forecast = ChipText(device);
  return absl::OkStatus();
}

void DescribeWorker(const v1::Registration& worker, ExplainedWorker& words) {
  words.id = worker.worker_id();
  words.pool = worker.pool();
  words.device = worker.device();
  words.memory_class = worker.memory_class() == v1::MEMORY_CLASS_SRAM ? "sram" : "hbm";
  std::vector<std::string> stages;
  for (const int stage : worker.stages()) {
    const absl::StatusOr<Stage> known = ToStage(stage);
    if (known.ok()) stages.emplace_back(ToString(*known));
  }
  words.stages = absl::StrJoin(stages, "+");
}

}  // namespace

absl::StatusOr<WorkerModel> ModelOf(const v1::Registration& worker, const model::Catalog& catalog,
                                    const std::string& chip) {
  WorkerModel out;
  DescribeWorker(worker, out.words);
  const bool emulated = !worker.model_shape().empty();
  if (!emulated && !worker.has_loaded()) {
    return absl::FailedPreconditionError(
        absl::StrCat("worker ", worker.worker_id(),
                     " says no shape of its model: it is older than this tandemctl"));
  }
  RETURN_IF_ERROR(emulated ? TakeEmulatedModel(worker, catalog, out) : TakeRealModel(worker, out));
  std::optional<model::Device> device;
  if (absl::string_view name = worker.device(); absl::ConsumePrefix(&name, "emulated/")) {
    ASSIGN_OR_RETURN(device, catalog.FindDevice(std::string(name)));
    out.words.chip = ChipText(*device);
  }
  if (!chip.empty()) {
    ASSIGN_OR_RETURN(device, catalog.ResolveDevice(chip));
  }
  if (device.has_value()) {
    RETURN_IF_ERROR(AddTable(*device, emulated, out));
  } else {
    out.words.no_model = absl::StrCat("the catalog has no entry of '", worker.device(),
                                      "': name one with --chip, of your own with --catalog");
  }
  return out;
}

}  // namespace tandem::ctl
