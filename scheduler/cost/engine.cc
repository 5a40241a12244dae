#include "scheduler/cost/engine.h"

#include <absl/strings/str_cat.h>

namespace tandem::cost {

CallFactors& CallFactors::operator*=(const CallFactors& other) {
  memory *= other.memory;
  kv *= other.kv;
  compute *= other.compute;
  fixed *= other.fixed;
  all_reduce *= other.all_reduce;
  prefill_compute *= other.prefill_compute;
  prefill_fixed *= other.prefill_fixed;
  return *this;
}

namespace {

CallFactors FactorsOf(const model::EngineFactors& of) {
  const double decode = of.Of("decode"), prefill = of.Of("prefill");
  return {of.Of("memory") * decode,        of.Of("kv"),
          of.Of("compute") * decode,       of.Of("fixed") * decode,
          of.Of("all_reduce") * decode,    of.Of("prefill_compute") * prefill,
          of.Of("prefill_fixed") * prefill};
}

}  // namespace

EngineConstants ConstantsOf(const model::Engine& engine, const std::string& version,
                            const std::string& chip, model::Dtype weights,
                            const std::string& model) {
  EngineConstants constants;
  constants.per_step = Duration::FromSeconds(engine.step_seconds.value);
  constants.per_sequence = Duration::FromSeconds(engine.sequence_seconds.value);
  constants.prefill_share = engine.prefill_share.value;
  constants.per_request = Duration::FromSeconds(engine.request_seconds.value);
  constants.per_open_request = Duration::FromSeconds(engine.open_request_seconds.value);
  constants.step_tokens = static_cast<uint64_t>(engine.step_tokens.value);
  constants.kv_reserve = engine.kv_reserve.value;
  for (const std::string& scope : {absl::StrCat(chip, "/", model::DtypeName(weights)), model,
                                   absl::StrCat(model, "@", version)}) {
    const auto found = engine.factors.find(scope);
    if (found != engine.factors.end()) constants.factors *= FactorsOf(found->second);
  }
  return constants;
}

model::Precision PrecisionOf(const model::Engine& engine, model::Dtype weights) {
  model::Precision precision;
  precision.weights = weights;
  if (model::BitsPerWeight(weights) < 16)
    precision.kv_element_bytes = static_cast<uint32_t>(engine.kv_element_bytes.value);
  return precision;
}

}  // namespace tandem::cost
