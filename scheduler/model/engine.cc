#include "scheduler/model/engine.h"

#include <absl/strings/str_cat.h>
#include <yaml-cpp/yaml.h>

#include "scheduler/base/status.h"
#include "scheduler/model/yaml_reader.h"

namespace tandem::model {
namespace {

constexpr Range kFactorRange = {0.01, 100};
constexpr Range kSecondsRange = {0, 10};

absl::Status ReadFactors(YamlReader reader, EngineFactors& factors) {
  for (const absl::string_view name : kEngineFactorNames) {
    const std::string key(name);
    if (reader.Has(key)) RequireFigure(reader, key, kFactorRange, factors.figures[key]);
  }
  return reader.Finish();
}

// Scopes are names of chips, models and versions, so every key is one.
absl::Status ReadScopes(const YAML::Node& scopes, YamlReader reader, Engine& engine) {
  for (const auto& entry : scopes) {
    if (!entry.first.IsScalar()) continue;  // Finish says so
    const std::string scope = entry.first.Scalar();
    reader.GetMapping(scope, [&](const YAML::Node& node) {
      return ReadFactors(reader.Below(node, scope), engine.factors[scope]);
    });
  }
  return reader.Finish();
}

}  // namespace

double EngineFactors::Of(absl::string_view name) const {
  const auto found = figures.find(std::string(name));
  return found == figures.end() ? 1 : found->second.value;
}

absl::StatusOr<Engine> ReadEngine(absl::string_view yaml, absl::string_view where) {
  const std::string file(where);
  ASSIGN_OR_RETURN(const YAML::Node root, ParseYaml(yaml, file));
  YamlReader reader(root, file);
  Engine engine;
  RequireText(reader, "name", engine.name);
  RequireText(reader, "source", engine.source);
  RequireFigure(reader, "step_seconds", kSecondsRange, engine.step_seconds);
  RequireFigure(reader, "sequence_seconds", kSecondsRange, engine.sequence_seconds);
  RequireFigure(reader, "prefill_share", {0, 2}, engine.prefill_share);
  RequireFigure(reader, "request_seconds", kSecondsRange, engine.request_seconds);
  RequireFigure(reader, "open_request_seconds", kSecondsRange, engine.open_request_seconds);
  RequireFigure(reader, "step_tokens", {1, 1e7}, engine.step_tokens);
  RequireFigure(reader, "kv_reserve", {0, 1}, engine.kv_reserve);
  RequireFigure(reader, "kv_element_bytes", {1, 2}, engine.kv_element_bytes);
  reader.GetMapping("factors", [&](const YAML::Node& node) {
    return ReadScopes(node, reader.Below(node, "factors"), engine);
  });
  RETURN_IF_ERROR(reader.Finish());
  return engine;
}

Engine NoEngine() {
  const auto figure = [](double value) {
    return Figure{value, Mark::kAssumed, "an engine without time of its own"};
  };
  Engine engine;
  engine.name = "none";
  engine.source = "Tandem's own engine: its time is real";
  engine.step_seconds = engine.sequence_seconds = engine.request_seconds =
      engine.open_request_seconds = figure(0);
  engine.prefill_share = engine.kv_reserve = figure(1);
  engine.step_tokens = figure(8192);
  engine.kv_element_bytes = figure(2);
  return engine;
}

}  // namespace tandem::model
