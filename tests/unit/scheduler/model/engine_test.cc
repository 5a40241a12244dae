// Goal: an engine's file is read as a value, and what is wrong in it is refused by file, line and
// key.

#include "scheduler/model/engine.h"

#include <absl/strings/match.h>
#include <absl/strings/str_replace.h>
#include <gtest/gtest.h>

namespace tandem::model {
namespace {

constexpr char kText[] = R"(name: acme
source: a test
step_seconds: {value: 1e-3, mark: fitted, error: 0.1, source: x}
sequence_seconds: {value: 2e-6, mark: fitted, source: x}
prefill_share: {value: 0.7, mark: fitted, source: x}
request_seconds: {value: 20e-3, mark: fitted, source: x}
open_request_seconds: {value: 3e-4, mark: fitted, source: x}
step_tokens: {value: 8192, mark: assumed, source: x}
kv_reserve: {value: 0.5, mark: assumed, source: x}
kv_element_bytes: {value: 1, mark: assumed, source: x}
factors:
  h100-sxm/fp8:
    memory: {value: 0.9, mark: fitted, error: 0.02, source: x}
  deepseek-v3@0.5.9:
    decode: {value: 2, mark: fitted, source: x}
)";

TEST(Engine, ReadsFiguresAndFactorsByScope) {
  const auto engine = ReadEngine(kText, "acme.yaml");
  ASSERT_TRUE(engine.ok()) << engine.status();
  EXPECT_EQ(engine->name, "acme");
  EXPECT_DOUBLE_EQ(engine->step_seconds.value, 1e-3);
  EXPECT_DOUBLE_EQ(engine->step_seconds.error, 0.1);
  EXPECT_EQ(engine->sequence_seconds.error, 0);
  EXPECT_DOUBLE_EQ(engine->factors.at("h100-sxm/fp8").Of("memory"), 0.9);
  EXPECT_DOUBLE_EQ(engine->factors.at("h100-sxm/fp8").Of("compute"), 1);
  EXPECT_DOUBLE_EQ(engine->factors.at("deepseek-v3@0.5.9").Of("decode"), 2);
}

TEST(Engine, RefusesWhatItDoesNotKnow) {
  const auto refused = [](absl::string_view from, absl::string_view to, absl::string_view words) {
    const auto engine = ReadEngine(absl::StrReplaceAll(kText, {{from, to}}), "acme.yaml");
    EXPECT_TRUE(absl::StrContains(engine.status().message(), words)) << engine.status();
  };
  refused("    memory:", "    speed:", "acme.yaml:13: factors.h100-sxm/fp8.speed: unknown key");
  refused("value: 0.9", "value: -1", "acme.yaml:13: factors.h100-sxm/fp8.memory.value");
  refused("value: 0.7", "value: x", "acme.yaml:5: prefill_share.value: 'x' is no number");
  refused("kv_reserve", "reserve", "kv_reserve: is missing");
  refused("mark: assumed", "mark: assumed, error: 0.1", "error: stands with fitted values only");
  refused("error: 0.1", "error: -1", "step_seconds.error");
  refused("  h100-sxm/fp8:", "  [a, b]:", "a key is a list");
}

TEST(Engine, NoneAddsNothing) {
  const Engine none = NoEngine();
  EXPECT_EQ(none.step_seconds.value + none.sequence_seconds.value + none.request_seconds.value, 0);
  EXPECT_EQ(none.prefill_share.value, 1);
  EXPECT_TRUE(none.factors.empty());
}

}  // namespace
}  // namespace tandem::model
