// Goal: whatever somebody's FFN server does wrong, no token is wrong, nothing hangs, and the error
// names the server and the field. Method: an attention worker as the daemon puts it together, with
// a holder that has one planted fault, beside a good one and alone.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "tests/fakes/planted_holder.h"
#include "tests/integration/rpc_engine_fixture.h"

namespace tandem {
namespace {

using namespace test;  // the fixture
using ::testing::HasSubstr;

struct Bad {
  const char* name;
  Fault fault;
  const char* says;  // when there is no other holder; empty: the holder is good enough
  bool lost = true;  // it is given up
};

class BadHolder : public EngineRpc, public testing::WithParamInterface<Bad> {
 protected:
  static FakeOptions FfnOptions() {
    FakeOptions options;
    options.stages = {Stage::kFfn};
    return options;
  }
  static constexpr uint32_t kTokens = 12;

  FfnEndpoint Endpoint() const {
    return {WorkerId("bad"), server_.address(), PlantedHolder::kEpoch};
  }

  // The holder's stream is open.
  void AwaitStream() {
    const auto end = std::chrono::steady_clock::now() + kDeadline;
    while (!attention_.core->Report().has_group && std::chrono::steady_clock::now() < end)
      std::this_thread::yield();
    ASSERT_TRUE(attention_.core->Report().has_group);
  }

  const LinkLimits limits_{.stall = {.base = Duration::Milliseconds(500)}, .backoff = {}};
  FakeBackend backend_{FfnOptions()};
  PlantedHolder holder_{backend_, "hash-chain", GetParam().fault};
  TestServer server_{{&holder_}};
  Node attention_{"A", {Stage::kPrefill, Stage::kAttention}, time_, limits_};
};

TEST_P(BadHolder, BesideAGoodOneCostsNoToken) {
  Node good("good", {Stage::kFfn}, time_);
  SetGroup(attention_, {Endpoint()});
  AwaitStream();  // else the good one might be up first, and serve all
  SetGroup(attention_, {Endpoint(), {WorkerId("good"), good.server->address(), 1}});
  Reader reader(attention_.server->address());
  Generate(attention_, nullptr, "r", Prompt(1, 5), kTokens);
  ExpectExact(reader.ReadToEnds(1), "r", Prompt(1, 5), kTokens);
  if (GetParam().lost) {
    EXPECT_GE(attention_.listener.shards_lost("bad"), 1u);
    EXPECT_GE(attention_.core->Report().counters.holders_lost, 1u);
    EXPECT_GE(attention_.core->Report().counters.calls_resent, 1u);
  } else {
    EXPECT_EQ(attention_.listener.shards_lost("bad"), 0u);
  }
  if (GetParam().fault == Fault::kTwice || GetParam().fault == Fault::kWrongName) {
    EXPECT_GE(attention_.handoff.mismatched_replies(), 1u) << "dropped and counted";
  }
}

TEST_P(BadHolder, AloneEndsItsSequencesHonestly) {
  SetGroup(attention_, {Endpoint()});
  Reader reader(attention_.server->address());
  Generate(attention_, nullptr, "r", Prompt(2, 5), kTokens);
  if (*GetParam().says == '\0') {
    ExpectExact(reader.ReadToEnds(1), "r", Prompt(2, 5), kTokens);
    return;
  }
  const SequenceEnd end = attention_.listener.WaitForEnd({RequestId("r"), 0, 0});
  EXPECT_EQ(end.reason, EndReason::kFailed);
  EXPECT_EQ(end.status.code(), absl::StatusCode::kInternal) << end.status;
  EXPECT_THAT(std::string(end.status.message()), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    Faults, BadHolder,
    testing::Values(Bad{"short", Fault::kShort, "FFN worker bad: reply of 0 bytes to a call of 16"},
                    Bad{"long", Fault::kLong, "FFN worker bad: reply of 20 bytes to a call of 16"},
                    Bad{"nan", Fault::kNan,
                        "FFN worker bad answered layer 0 with data[row 0][1] = nan"},
                    Bad{"late", Fault::kLate, "FFN worker bad: no answer for 0."},
                    Bad{"never", Fault::kSilent, "FFN worker bad: no answer for 0."},
                    Bad{"wrong_name", Fault::kWrongName, "FFN worker bad: no answer for 0."},
                    Bad{"twice", Fault::kTwice, "", false}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace tandem
