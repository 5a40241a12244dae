// A stream that is dialled again: what it leaves alone once it is parked.

#include <gtest/gtest.h>

#include <memory>
#include <utility>

#include "services/gateway/relay/grpc/redialled_stream.h"
#include "services/runtime/grpc_server.h"
#include "tests/fakes/latch.h"
#include "tests/fakes/manual_time.h"
#include "tests/integration/gateway_links_fixture.h"

namespace tandem::gateway {
namespace {

// Its owner may have destroyed the clock by then.
TEST(RedialledStream, ALastWordAfterParkAsksTheClockForNothing) {
  using Stream = RedialledStream<v1::TokenControl, v1::TokenStep>;
  TokensDoor door;
  test::TestServer server({&door});
  test::ManualTime time;
  test::Latch losing, parked, over;
  const auto dial = [&](const std::string& address, grpc::ClientContext* context,
                        Stream::Reactor* reactor) -> std::shared_ptr<void> {
    std::shared_ptr<v1::Tokens::Stub> stub = v1::Tokens::NewStub(MakeChannel(address));
    stub->async()->StepTokens(context, reactor);
    return {stub.get(), [stub, &over](void*) { over.Open(); }};
  };
  const auto stream =
      std::make_shared<Stream>(time, Stream::Hooks{.dial = dial,
                                                   .hello = [] { return v1::TokenControl(); },
                                                   .opened = [] {},
                                                   .received = [](v1::TokenStep&) {},
                                                   .lost =
                                                       [&](const absl::Status&) {
                                                         losing.Open();
                                                         parked.Wait();
                                                       }});
  stream->Dial(server.address());
  time.Advance(Duration());
  door.AwaitHello(0);
  door.End(0, absl::UnavailableError("gone"));
  ASSERT_TRUE(losing.Wait());
  stream->Park();
  parked.Open();
  ASSERT_TRUE(over.Wait());
  EXPECT_EQ(time.alarms(), 0u);
}

}  // namespace
}  // namespace tandem::gateway
