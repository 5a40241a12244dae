#pragma once

// Rows predicted by the production cost model and the closed loop of scheduler/planner.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "scheduler/cost/colocated.h"
#include "scheduler/cost/cost_table.h"
#include "scheduler/model/catalog.h"
#include "tests/bench/truth/rows.h"

namespace tandem::truth {

// What a row is about, in the catalog's words.
struct Subject {
  std::string chip, device, shape;
  model::Dtype weights = model::Dtype::kBf16;
};

// kInvalidArgument: the row names a model, system or precision that is unknown here; the message
// names the column. kNotFound: all are known and it is not predictable; the message says why.
absl::StatusOr<Subject> SubjectOf(const Row& row);

struct Prediction {
  double ttft_ms = 0, tpot_ms = 0;
};

// How a client measures: so many requests of each of its users, one after the other, whose lengths
// are drawn from [shortest, 1] of the nominal ones.
struct ClientHabits {
  uint64_t rounds = 1;
  double shortest = 1;
};
// Source: the client of InferenceX; aiconfigurator's fixes the lengths.
inline constexpr ClientHabits kInferenceXClient = {10, 0.8}, kAiconfiguratorClient = {10, 1};

// What that client sees of `users` at once. kFailedPrecondition: one request alone does not fit.
absl::StatusOr<Prediction> SimulateClient(const cost::CostTable& table, uint64_t users,
                                          const cost::RequestShape& request, ClientHabits client);

// The figures that predictions depend on, which a fit may set.
class Predictor {
 public:
  // Keeps a copy of what the rows need.
  explicit Predictor(const model::Catalog& catalog) : catalog_(catalog) {}

  // Sets a figure: KIND is "chip", "device" or "engine"; the key is the file's, as
  // "fp8.layer_seconds", "all_reduce.base_seconds" or "factors.h100-sxm/fp8.memory".
  absl::Status Set(const std::string& kind, const std::string& name, const std::string& key,
                   double value);

  void ClearFactors();  // of all engines

  // kFailedPrecondition: the model does not fit.
  absl::StatusOr<Prediction> Predict(const Row& row, const Subject& subject);
  // Without the simulation: TPOT in the steady state.
  absl::StatusOr<double> SteadyTpotMs(const Row& row, const Subject& subject);
  // The prefill of one of its prompts, with nothing beside it.
  absl::StatusOr<double> PromptMs(const Row& row, const Subject& subject);

 private:
  absl::StatusOr<const model::Device*> DeviceOf(const Subject& subject);
  absl::StatusOr<model::Engine*> EngineOf(const std::string& name);
  absl::StatusOr<cost::CostTable> TableOf(const Row& row, const Subject& subject);

  const model::Catalog& catalog_;
  std::map<std::string, model::Chip> chips_;      // as set
  std::map<std::string, model::Device> devices_;  // with these chips
  std::map<std::string, model::Engine> engines_;
  // By all that they depend on: twins among the rows, and rows that a changed figure leaves alone,
  // are simulated once.
  std::unordered_map<std::string, absl::StatusOr<Prediction>> known_;
};

}  // namespace tandem::truth
