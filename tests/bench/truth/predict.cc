#include "tests/bench/truth/predict.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>

#include "scheduler/base/status.h"
#include "scheduler/model/figures.h"
#include "scheduler/planner/closed_loop.h"

namespace tandem::truth {
namespace {

using model::Figure;

struct Name {
  const char *published, *ours;
};
constexpr std::array<Name, 15> kModels = {{
    {"deepseek-ai/DeepSeek-R1", "deepseek-v3"},
    {"deepseek-ai/DeepSeek-V3", "deepseek-v3"},
    {"nvidia/DeepSeek-R1-NVFP4", "deepseek-v3"},
    {"nvidia/DeepSeek-V3.1-NVFP4", "deepseek-v3"},
    {"meta-llama/Llama-3.1-70B", "llama-3-70b"},
    {"meta-llama/Llama-3.1-8B-Instruct", "llama-3-8b"},
    {"nvidia/Llama-3.1-8B-Instruct-FP8", "llama-3-8b"},
    {"Qwen/Qwen3-32B", "qwen3-32b"},
    {"nvidia/Qwen3-32B-NVFP4", "qwen3-32b"},
    {"Qwen/Qwen3-235B-A22B-FP8", "qwen3-235b-a22b"},
    {"Qwen/Qwen3.5-397B-A17B", "qwen3.5-397b-a17b"},
    {"MiniMaxAI/MiniMax-M2.5", "minimax-m2.5"},
    {"moonshotai/Kimi-K2.5", "kimi-k2"},
    {"openai/gpt-oss-120b", "gpt-oss-120b"},
    {"zhipuai/GLM-5", "glm-5"},
}};
struct System {
  const char *published, *chip, *group;  // group-x2 is two of them
};
constexpr std::array<System, 6> kSystems = {{
    {"h100_sxm", "h100-sxm", "h100"},
    {"h200_sxm", "h200-sxm", "h200"},
    {"b200_sxm", "b200-sxm", "b200"},
    {"b300_sxm", "b300-sxm", "b300"},
    {"gb200", "gb200", "gb200"},
    {"gb300", "gb300", "gb300"},
}};

constexpr size_t kMaxKnown = 100'000;

// Everything of a table that an answer depends on, as text.
std::string Fingerprint(const cost::CostTable& table) {
  const model::Device& device = table.device();
  const cost::EngineConstants& engine = table.engine();
  const cost::CallFactors& f = engine.factors;
  std::string text = absl::StrCat(table.shape().name, "|", device.name, "|");
  const auto add = [&](double value) {
    text.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  for (const model::NamedFigure& figure :
       FiguresOf(device.chip.dtypes.at(table.precision().weights)))
    add(figure.figure.value);
  add(device.all_reduce.base_seconds.value);
  add(device.all_reduce.doubling_seconds.value);
  add(table.precision().kv_element_bytes);
  for (const Duration time :
       {engine.per_step, engine.per_sequence, engine.per_request, engine.per_open_request})
    add(time.seconds());
  for (const double value : {engine.prefill_share, engine.kv_reserve, f.memory, f.kv, f.compute,
                             f.fixed, f.all_reduce, f.prefill_compute, f.prefill_fixed})
    add(value);
  add(static_cast<double>(engine.step_tokens));
  return text;
}

template <typename Table>
const typename Table::value_type* Find(const Table& table, const std::string& published) {
  for (const auto& entry : table) {
    if (entry.published == published) return &entry;
  }
  return nullptr;
}

absl::Status Unknown(const char* column, const std::string& value) {
  return absl::InvalidArgumentError(absl::StrCat(column, " '", value, "' is unknown"));
}

// "fp4" is what InferenceX calls every 4-bit float format.
absl::StatusOr<model::Dtype> WeightsOf(const Row& row, const std::string& shape) {
  if (row.precision.empty() || row.precision == "bf16") return model::Dtype::kBf16;
  if (absl::StartsWith(shape, "gpt-oss")) return model::Dtype::kMxfp4;  // as released, everywhere
  if (row.precision == "fp4") return model::Dtype::kNvfp4;
  if (row.precision == "fp8") return model::Dtype::kFp8;
  if (row.precision == "int4") return model::Dtype::kInt4;
  return Unknown("precision", row.precision);
}

// A dtype's figure by its name in the file.
Figure* FindDtypeFigure(model::DtypeFigures& figures, absl::string_view key) {
  if (key == "bandwidth_efficiency") return &figures.bandwidth_efficiency;
  if (key == "compute_efficiency") return &figures.compute_efficiency;
  if (key == "exponent") return &figures.exponent;
  if (key == "layer_seconds") return &figures.layer_seconds;
  if (key == "expert_factor") return &figures.expert_factor;
  if (key == "prefill_compute_efficiency") return &figures.prefill_compute_efficiency;
  if (key == "prefill_layer_seconds") return &figures.prefill_layer_seconds;
  return nullptr;
}

Figure* FindFigure(model::Engine& engine, const std::string& key) {
  if (key == "step_seconds") return &engine.step_seconds;
  if (key == "sequence_seconds") return &engine.sequence_seconds;
  if (key == "prefill_share") return &engine.prefill_share;
  if (key == "request_seconds") return &engine.request_seconds;
  if (key == "open_request_seconds") return &engine.open_request_seconds;
  if (key == "step_tokens") return &engine.step_tokens;
  if (key == "kv_reserve") return &engine.kv_reserve;
  if (key == "kv_element_bytes") return &engine.kv_element_bytes;
  constexpr absl::string_view kFactors = "factors.";
  const size_t dot = key.rfind('.');
  if (!absl::StartsWith(key, kFactors) || dot <= kFactors.size()) return nullptr;
  const std::string scope = key.substr(kFactors.size(), dot - kFactors.size());
  const std::string name = key.substr(dot + 1);
  const auto& names = model::kEngineFactorNames;
  if (std::find(names.begin(), names.end(), name) == names.end()) return nullptr;
  return &engine.factors[scope].figures[name];
}

}  // namespace

absl::StatusOr<Prediction> SimulateClient(const cost::CostTable& table, uint64_t users,
                                          const cost::RequestShape& request, ClientHabits client) {
  planner::ClosedLoopLoad load;
  load.clients = users;
  load.requests = users * client.rounds;
  load.request = request;
  load.shortest = client.shortest;
  ASSIGN_OR_RETURN(const planner::ClosedLoopReport report,
                   planner::SimulateClosedLoop(table, load));
  return Prediction{1e3 * report.ttft_mean.seconds(), 1e3 * report.tpot_mean.seconds()};
}

absl::StatusOr<Subject> SubjectOf(const Row& row) {
  Subject subject;
  const Name* shape = Find(kModels, row.model);
  if (shape == nullptr) return Unknown("model_path", row.model);
  const System* system = Find(kSystems, row.system);
  if (system == nullptr) return Unknown("system", row.system);
  subject.shape = shape->ours;
  subject.chip = system->chip;
  ASSIGN_OR_RETURN(subject.weights, WeightsOf(row, subject.shape));
  const auto cannot = [](const std::string& why) { return absl::NotFoundError(why); };
  if (row.mode != "agg") return cannot("disaggregated");
  if (row.attention_dp > 1) return cannot("attention DP");
  if (row.pp > 1) return cannot("pipeline parallel");
  if (row.tp != 1 && row.tp != 2 && row.tp != 4 && row.tp != 8)
    return cannot(absl::StrCat("TP ", row.tp));
  if (row.concurrency == 0) return cannot("no concurrency");
  subject.device = row.tp == 1 ? subject.chip : absl::StrCat(system->group, "-x", row.tp);
  return subject;
}

absl::StatusOr<model::Engine*> Predictor::EngineOf(const std::string& name) {
  auto found = engines_.find(name);
  if (found == engines_.end()) {
    ASSIGN_OR_RETURN(model::Engine engine, catalog_.FindEngine(name));
    found = engines_.emplace(name, std::move(engine)).first;
  }
  return &found->second;
}

absl::StatusOr<const model::Device*> Predictor::DeviceOf(const Subject& subject) {
  auto found = devices_.find(subject.device);
  if (found == devices_.end()) {
    ASSIGN_OR_RETURN(model::Device device, catalog_.FindDevice(subject.device));
    const auto chip = chips_.find(device.chip.name);
    if (chip != chips_.end()) device.chip = chip->second;
    found = devices_.emplace(subject.device, std::move(device)).first;
  }
  return &found->second;
}

absl::Status Predictor::Set(const std::string& kind, const std::string& name,
                            const std::string& key, double value) {
  Figure* figure = nullptr;
  if (kind == "engine") {
    ASSIGN_OR_RETURN(model::Engine * engine, EngineOf(name));
    figure = FindFigure(*engine, key);
  } else if (kind == "device") {
    ASSIGN_OR_RETURN(const model::Device* device, DeviceOf({"", name, "", {}}));
    model::AllReduceFigures& sum = const_cast<model::Device*>(device)->all_reduce;
    if (key == "all_reduce.base_seconds") figure = &sum.base_seconds;
    if (key == "all_reduce.doubling_seconds") figure = &sum.doubling_seconds;
  } else if (kind == "chip") {
    auto chip = chips_.find(name);
    if (chip == chips_.end()) {
      ASSIGN_OR_RETURN(model::Chip fresh, catalog_.FindChip(name));
      chip = chips_.emplace(name, std::move(fresh)).first;
    }
    const std::pair<std::string, std::string> parts = absl::StrSplit(key, absl::MaxSplits('.', 1));
    ASSIGN_OR_RETURN(const model::Dtype dtype, model::ParseDtype(parts.first));
    const auto of = chip->second.dtypes.find(dtype);
    if (of != chip->second.dtypes.end()) figure = FindDtypeFigure(of->second, parts.second);
  }
  if (figure == nullptr)
    return absl::InvalidArgumentError(absl::StrCat(kind, " ", name, ": no figure '", key, "'"));
  figure->value = value;
  if (kind == "chip") {
    for (auto& [device_name, device] : devices_) {
      if (device.chip.name == name) device.chip = chips_.at(name);
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<cost::CostTable> Predictor::TableOf(const Row& row, const Subject& subject) {
  ASSIGN_OR_RETURN(const model::Device* device, DeviceOf(subject));
  ASSIGN_OR_RETURN(const model::Engine* engine, EngineOf(row.engine));
  ASSIGN_OR_RETURN(const model::ModelShape shape, catalog_.FindModel(subject.shape));
  cost::CostOptions options;
  options.precision = cost::PrecisionOf(*engine, subject.weights);
  options.engine =
      cost::ConstantsOf(*engine, row.version, subject.chip, subject.weights, subject.shape);
  return cost::CostTable::Create(*device, shape, options);
}

absl::StatusOr<Prediction> Predictor::Predict(const Row& row, const Subject& subject) {
  ASSIGN_OR_RETURN(const cost::CostTable table, TableOf(row, subject));
  const std::string key =
      absl::StrCat(row.concurrency, "|", row.prompt_tokens, "|", row.output_tokens, "|",
                   row.inferencex, "|", Fingerprint(table));
  const auto found = known_.find(key);
  if (found != known_.end()) return found->second;
  if (known_.size() > kMaxKnown) known_.clear();
  const ClientHabits& client = row.inferencex ? kInferenceXClient : kAiconfiguratorClient;
  const cost::RequestShape request = {row.prompt_tokens, row.output_tokens};
  auto seen = SimulateClient(table, row.concurrency, request, client);
  return known_.emplace(key, std::move(seen)).first->second;
}

void Predictor::ClearFactors() {
  for (const std::string& name : catalog_.EngineNames()) {
    if (const auto engine = EngineOf(name); engine.ok()) (*engine)->factors.clear();
  }
}

absl::StatusOr<double> Predictor::PromptMs(const Row& row, const Subject& subject) {
  ASSIGN_OR_RETURN(const cost::CostTable table, TableOf(row, subject));
  return 1e3 * table.Prefill(0, row.prompt_tokens).seconds();
}

absl::StatusOr<double> Predictor::SteadyTpotMs(const Row& row, const Subject& subject) {
  ASSIGN_OR_RETURN(const cost::CostTable table, TableOf(row, subject));
  cost::RequestShape request = {row.prompt_tokens, row.output_tokens};
  const uint64_t fits = cost::BatchThatFits(table, request);
  if (fits == 0) return absl::FailedPreconditionError("does not fit");
  return 1e3 * cost::TimePerOutputToken(table, std::min(fits, row.concurrency), request).seconds();
}

}  // namespace tandem::truth
