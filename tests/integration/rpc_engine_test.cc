// Three kinds of worker in one process, talking over real gRPC: the engines of workers/engine on
// fake backends, whose numbers betray any row, block, layer or position that went astray.

#include <gtest/gtest.h>

#include <atomic>
#include <memory>

#include "tests/fakes/latch.h"
#include "tests/integration/rpc_engine_fixture.h"

namespace tandem {
namespace {

using namespace test;  // the fixture

// Goal: pd-afd over real gRPC gives the tokens that one process gives. Method: eight prompts of
// different lengths at once.
TEST_F(EngineRpc, PrefillAttentionAndFfnWorkersGiveTheExactTokens) {
  Node ffn("F", {Stage::kFfn}, time_);
  Node attention("A", {Stage::kAttention}, time_);
  Node prefill("P", {Stage::kPrefill}, time_);
  SetGroup(attention, {{"F", &ffn}});
  Reader reader(attention.server->address());
  constexpr uint32_t kRequests = 8;
  for (uint32_t i = 0; i < kRequests; ++i) {
    Generate(attention, &prefill, "r" + std::to_string(i), Prompt(i, 2 + 3 * i), 10 + i);
  }
  const auto tokens = reader.ReadToEnds(kRequests);
  for (uint32_t i = 0; i < kRequests; ++i) {
    ExpectExact(tokens, "r" + std::to_string(i), Prompt(i, 2 + 3 * i), 10 + i);
  }
  EXPECT_EQ(attention.kv_service->dropped_frames(), 0u);
  EXPECT_EQ(attention.handoff.mismatched_replies(), 0u);
  EXPECT_EQ(ffn.handoff_service->malformed_calls(), 0u);
}

// Goal: an FFN worker's death in mid-call changes no token. Method: the first holder dies with a
// call in its hands; its rows go to the second.
TEST_F(EngineRpc, FfnWorkersDeathInMidCallChangesNoToken) {
  auto first = std::make_unique<Node>("F1", std::set<Stage>{Stage::kFfn}, time_);
  Node second("F2", {Stage::kFfn}, time_);
  Node attention("A", {Stage::kAttention}, time_);
  Node prefill("P", {Stage::kPrefill}, time_);
  test::Latch there, go;
  std::atomic<int> calls{0};
  first->backend->SetHook([&](const test::FakeCall& call) {
    if (call.kind == test::FakeCallKind::kFfn && calls.fetch_add(1) == 7) {
      there.Open();
      go.Wait();
    }
    return absl::OkStatus();
  });
  SetGroup(attention, {{"F1", first.get()}});
  Reader reader(attention.server->address());
  for (uint32_t i = 0; i < 3; ++i)
    Generate(attention, &prefill, "r" + std::to_string(i), Prompt(i, 5 + i), 20);
  ASSERT_TRUE(there.Wait());
  SetGroup(attention, {{"F1", first.get()}, {"F2", &second}});
  first->server->Kill();
  const auto tokens = reader.ReadToEnds(3);
  go.Open();
  for (uint32_t i = 0; i < 3; ++i)
    ExpectExact(tokens, "r" + std::to_string(i), Prompt(i, 5 + i), 20);
  EXPECT_GE(attention.listener.shards_lost("F1"), 1u);
  first.reset();
}

}  // namespace
}  // namespace tandem
