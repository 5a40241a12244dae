// Goal: the suite passes servers that keep docs/handoff.md, and catches each planted fault by the
// case that is there for it. Method: a server with one fault, written against the proto alone, and
// our own engine and service; both compute a hash chain, whose numbers betray any row that strayed.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "services/runtime/real_time.h"
#include "tests/fakes/fake_backend.h"
#include "tests/fakes/planted_holder.h"
#include "tests/fakes/token_receiver.h"
#include "tests/integration/rpc_support.h"
#include "workers/conformance/ffn_suite.h"
#include "workers/engine/worker_core.h"
#include "workers/rpc/handoff_connector.h"
#include "workers/rpc/handoff_service.h"
#include "workers/rpc/kv_connector.h"

namespace tandem::conformance {
namespace {

using test::Fault;
using ::testing::HasSubstr;

constexpr char kModel[] = "hash-chain";

// Rows wide enough that two of the largest replies do not fit into what gRPC takes from a stream
// that nobody reads.
test::FakeOptions Options() {
  test::FakeOptions options;
  options.stages = {Stage::kFfn};
  options.dimensions.hidden = 4096;
  return options;
}

FfnSuiteOptions SuiteOptions(const std::string& address) {
  FfnSuiteOptions options;
  options.address = address;
  options.model_name = kModel;
  options.patience = Duration::Seconds(60);  // a good server has all the time it wants
  return options;
}

std::string Text(const CaseResult& result) {
  return result.name + ": " + result.what + "; " + result.first_difference;
}

std::vector<CaseResult> ResultsOf(const FfnSuiteOptions& options) {
  test::FakeBackend reference(Options());
  const auto results = RunFfnSuite(options, reference, [](const CaseResult&) {});
  EXPECT_TRUE(results.ok()) << results.status();
  return results.ok() ? *results : std::vector<CaseResult>();
}

TEST(FfnSuite, OurOwnEngineBehindItsServicePassesEveryCase) {
  RealTimeSource time;
  test::FakeBackend backend(Options());
  HandoffConnector activation(time, Random(1), {});
  GrpcKvConnector kv(time, Random(2), {});
  test::RecordingListener listener;
  EngineConfig config;
  config.worker = WorkerId("f");
  config.model = kModel;
  config.stages = {Stage::kFfn};
  config.max_queued_bytes = 512u << 20;  // 64 of the suite's largest streams
  WorkerCore core(config, backend, time, activation, kv, listener);
  HandoffService service(core.ffn());
  test::TestServer server({&service});
  core.Start();
  const std::vector<CaseResult> results = ResultsOf(SuiteOptions(server.address()));
  EXPECT_EQ(results.size(), FfnCaseNames().size());
  for (const CaseResult& result : results)
    EXPECT_EQ(result.verdict, Verdict::kPass) << Text(result);
  server.Kill();
  core.Stop();
}

TEST(FfnSuite, AServerOfOthersWithoutAFaultPassesEveryCase) {
  test::FakeBackend backend(Options());
  test::PlantedHolder holder(backend, kModel, Fault::kNone);
  test::TestServer server({&holder});
  const std::vector<CaseResult> results = ResultsOf(SuiteOptions(server.address()));
  EXPECT_EQ(results.size(), FfnCaseNames().size());
  for (const CaseResult& result : results)
    EXPECT_EQ(result.verdict, Verdict::kPass) << Text(result);
}

struct Planted {
  const char* name;
  Fault fault;
  const char* caught_by;  // the case
  const char* says;       // of its words, or of the first difference
  double patience_seconds = 60;
};

class PlantedFault : public testing::TestWithParam<Planted> {};

TEST_P(PlantedFault, IsCaughtByItsCase) {
  const Planted& planted = GetParam();
  test::FakeBackend backend(Options());
  test::PlantedHolder holder(backend, kModel, planted.fault);
  test::TestServer server({&holder});
  FfnSuiteOptions options = SuiteOptions(server.address());
  options.only = planted.caught_by;
  options.epoch = test::PlantedHolder::kEpoch;
  options.patience = Duration::FromSeconds(planted.patience_seconds);
  const std::vector<CaseResult> results = ResultsOf(options);
  ASSERT_EQ(results.size(), 1u);
  EXPECT_EQ(results[0].verdict, Verdict::kFail);
  EXPECT_THAT(Text(results[0]), HasSubstr(planted.says));
}

INSTANTIATE_TEST_SUITE_P(
    Ffn, PlantedFault,
    testing::Values(
        Planted{"short", Fault::kShort, "shape/one_row", "16384 bytes were due"},
        Planted{"long", Fault::kLong, "shape/one_row", "a reply of 16388 bytes"},
        Planted{"nan", Fault::kNan, "shape/one_row", "row 0 element 1: nan"},
        Planted{"late", Fault::kLate, "shape/one_row", "no reply within 2 s", 2},
        Planted{"silent", Fault::kSilent, "shape/one_row", "no reply within 2 s", 2},
        Planted{"never", Fault::kNever, "reply/once", "no reply within 2 s", 2},
        Planted{"twice", Fault::kTwice, "reply/once", "it was answered already"},
        Planted{"wrong_name", Fault::kWrongName, "shape/one_row", "no such call was made"},
        Planted{"forgets_attempt", Fault::kForgetsAttempt, "call/name", "no such call was made"},
        Planted{"swapped_rows", Fault::kSwappedRows, "shape/largest", "from the reference"},
        Planted{"residual_added", Fault::kResidualAdded, "values/extremes", "from the reference"},
        Planted{"next_layer", Fault::kNextLayer, "values/precision", "from the reference"},
        Planted{"imprecise", Fault::kImprecise, "values/precision", "of its length"},
        Planted{"batch_dependent", Fault::kBatchDependent, "batch/alone",
                "has other bits than alone"},
        Planted{"position_dependent", Fault::kPositionDependent, "batch/order", "row "},
        Planted{"not_idempotent", Fault::kNotIdempotent, "idempotence/again", "has other bits"},
        Planted{"ignores_version", Fault::kIgnoresVersion, "open/wrong_version", "a grant came"},
        Planted{"ignores_model", Fault::kIgnoresModel, "open/wrong_model", "a grant came"},
        Planted{"ignores_shape", Fault::kIgnoresShape, "open/wrong_shape", "a grant came"},
        Planted{"ignores_class", Fault::kIgnoresClass, "open/wrong_class", "a grant came"},
        Planted{"ignores_epoch", Fault::kIgnoresEpoch, "open/stale_epoch", "a grant came"},
        Planted{"stale_without_epoch", Fault::kStaleWithoutEpoch, "open/stale_epoch",
                "with shard_epoch 0"},
        Planted{"ignores_epoch_of_calls", Fault::kIgnoresEpochOfCalls, "error/stale_epoch",
                "an error reply was due"},
        Planted{"ignores_data_type", Fault::kIgnoresDataType, "error/data_type",
                "an error reply was due"},
        Planted{"ignores_layer", Fault::kIgnoresLayer, "error/layer", "an error reply was due"},
        Planted{"ignores_routing", Fault::kIgnoresRouting, "error/routing",
                "an error reply was due, UNIMPLEMENTED"},
        Planted{"ignores_segments", Fault::kIgnoresSegments, "error/segments",
                "an error reply was due"},
        Planted{"takes_anything", Fault::kTakesAnything, "order/second_open", "no reply within 2 s",
                2},
        Planted{"error_ends_stream", Fault::kErrorEndsStream, "error/short_data",
                "the stream ended with INVALID_ARGUMENT"},
        Planted{"error_without_name", Fault::kErrorWithoutName, "error/long_data", "was due"},
        Planted{"small_credit", Fault::kSmallCredit, "open/granted",
                "at least two of its largest calls"},
        Planted{"leaks_credit", Fault::kLeaksCredit, "cancel/credit_comes_back",
                "cancelled streams: a refusal came, RESOURCE_EXHAUSTED", 2},
        Planted{"one_at_a_time", Fault::kOneAtATime, "credit/stopped_reader",
                "while another peer does not read: no reply within 2 s", 2},
        Planted{"silent_zero_rows", Fault::kSilentZeroRows, "shape/zero_rows",
                "no reply within 2 s", 2},
        Planted{"refuses_older_attempts", Fault::kRefusesOlderAttempts, "idempotence/stale_attempt",
                "an older attempt"},
        Planted{"stops_at_unknown_fields", Fault::kStopsAtUnknownFields, "call/unknown_fields",
                "the stream ended with INVALID_ARGUMENT"}),
    [](const auto& info) { return info.param.name; });

TEST(FfnSuite, NobodyAtTheAddressIsSaid) {
  test::FakeBackend reference(Options());
  FfnSuiteOptions options = SuiteOptions("127.0.0.1:1");
  options.patience = Duration::Seconds(10);
  const auto results = RunFfnSuite(options, reference, [](const CaseResult&) {});
  EXPECT_EQ(results.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(results.status().message()), HasSubstr("127.0.0.1:1: "));
}

TEST(FfnSuite, ACaseThatThereIsNotIsAnError) {
  test::FakeBackend backend(Options());
  test::PlantedHolder holder(backend, kModel, Fault::kNone);
  test::TestServer server({&holder});
  FfnSuiteOptions options = SuiteOptions(server.address());
  options.only = "shape/round";
  const auto results = RunFfnSuite(options, backend, [](const CaseResult&) {});
  EXPECT_EQ(results.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace tandem::conformance
