// Goal: an engine's constants are those of all scopes that a use of it is in.

#include "scheduler/cost/engine.h"

#include <gtest/gtest.h>

namespace tandem::cost {
namespace {

model::Engine Acme() {
  model::Engine engine = model::NoEngine();
  engine.step_seconds.value = 1e-3;
  engine.kv_element_bytes.value = 1;
  engine.step_tokens.value = 4096;
  const auto factor = [&](const char* scope, const char* name, double value) {
    engine.factors[scope].figures[name] = {value, model::Mark::kFitted, "a test"};
  };
  factor("h100-sxm/fp8", "memory", 2);
  factor("h100-sxm/fp8", "prefill_fixed", 3);
  factor("llama-3-70b", "memory", 5);
  factor("llama-3-70b@1.0", "decode", 7);
  factor("llama-3-70b@1.0", "prefill", 11);
  return engine;
}

TEST(ConstantsOf, MultipliesTheFactorsOfChipModelAndVersion) {
  const EngineConstants all =
      ConstantsOf(Acme(), "1.0", "h100-sxm", model::Dtype::kFp8, "llama-3-70b");
  EXPECT_EQ(all.per_step, Duration::Milliseconds(1));
  EXPECT_EQ(all.step_tokens, 4096);
  EXPECT_DOUBLE_EQ(all.factors.memory, 2 * 5 * 7);
  EXPECT_DOUBLE_EQ(all.factors.compute, 7);
  EXPECT_DOUBLE_EQ(all.factors.fixed, 7);
  EXPECT_DOUBLE_EQ(all.factors.all_reduce, 7);
  EXPECT_DOUBLE_EQ(all.factors.kv, 1);
  EXPECT_DOUBLE_EQ(all.factors.prefill_compute, 11);
  EXPECT_DOUBLE_EQ(all.factors.prefill_fixed, 3 * 11);
}

TEST(ConstantsOf, OtherScopesChangeNothing) {
  const EngineConstants other =
      ConstantsOf(Acme(), "2.0", "h100-sxm", model::Dtype::kBf16, "llama-3-8b");
  EXPECT_DOUBLE_EQ(other.factors.memory, 1);
  EXPECT_DOUBLE_EQ(other.factors.prefill_fixed, 1);
}

TEST(PrecisionOf, KvIsNarrowWhereWeightsAre) {
  EXPECT_EQ(PrecisionOf(Acme(), model::Dtype::kFp8).kv_element_bytes, 1);
  EXPECT_EQ(PrecisionOf(Acme(), model::Dtype::kNvfp4).kv_element_bytes, 1);
  EXPECT_EQ(PrecisionOf(Acme(), model::Dtype::kBf16).kv_element_bytes, 2);
  EXPECT_EQ(PrecisionOf(model::NoEngine(), model::Dtype::kFp8).kv_element_bytes, 2);
}

}  // namespace
}  // namespace tandem::cost
