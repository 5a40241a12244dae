#include "services/router/router_log.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "services/runtime/log.h"

namespace tandem::router {
namespace {

// Goal: placements, ends and refusals are one line each, with the request's id, and no token is
// ever written.
TEST(RouterLog, OneLineForEachPlacementAndEndWithItsRequestIdAndNoTokens) {
  InitLog({.daemon = "tandem-router", .format = LogFormat::kText});
  control::GenerateArrived generate{GatewayId("g-1"), {}};
  generate.spec.request = RequestId("r-1");
  generate.spec.prompt_ids = {987654};
  control::SendDecode decode;
  decode.request = RequestId("r-1");
  decode.prompt_ids = {987654};
  const SequenceKey key{RequestId("r-1"), 0, 0};
  RouterLog log;
  testing::internal::CaptureStderr();
  log.Handled(
      generate,
      {decode,
       control::TellPlaced{GatewayId("g-1"), key, "pd", WorkerId("p-1"), WorkerId("a-1"), "h:1"},
       control::TellEnd{
           GatewayId("g-1"), key, {EndReason::kFailed, absl::ResourceExhaustedError("full")}, {}}},
      Instant());
  log.Handled(control::SequenceEnded{WorkerId("a-1"), key, {EndReason::kEos, absl::OkStatus()}}, {},
              Instant());
  const std::string out = testing::internal::GetCapturedStderr();
  EXPECT_EQ(std::count(out.begin(), out.end(), '\n'), 3) << out;
  EXPECT_NE(
      out.find("sequence_placed request_id=r-1 choice=0 attempt=0 topology=pd prefill_worker=p-1"),
      std::string::npos)
      << out;
  EXPECT_NE(out.find("sequence_not_placed request_id=r-1"), std::string::npos) << out;
  EXPECT_NE(out.find("reason=failed code=RESOURCE_EXHAUSTED message=full"), std::string::npos)
      << out;
  EXPECT_NE(out.find("sequence_ended request_id=r-1 choice=0 attempt=0 worker=a-1 reason=eos"),
            std::string::npos)
      << out;
  EXPECT_EQ(out.find("987654"), std::string::npos) << out;
}

}  // namespace
}  // namespace tandem::router
