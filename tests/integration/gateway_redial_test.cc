// A stream that is dialled again: what it leaves alone once it is parked.

#include <gtest/gtest.h>

#include <atomic>
#include <memory>
#include <utility>

#include "services/gateway/relay/grpc/redialled_stream.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/real_time.h"
#include "tests/fakes/latch.h"
#include "tests/integration/gateway_links_fixture.h"

namespace tandem::gateway {
namespace {

class CountedTime final : public TimeSource {
 public:
  Instant Now() const override { return time_.Now(); }
  AlarmId CallAt(Instant when, absl::AnyInvocable<void()> fn) override {
    calls++;
    return time_.CallAt(when, std::move(fn));
  }
  bool Cancel(AlarmId alarm) override { return time_.Cancel(alarm); }
  std::atomic<int> calls{0};

 private:
  RealTimeSource time_;
};

// Its owner may have destroyed the clock by then.
TEST(RedialledStream, ALastWordAfterParkAsksTheClockForNothing) {
  using Stream = RedialledStream<v1::TokenControl, v1::TokenStep>;
  TokensDoor door;
  test::TestServer server({&door});
  CountedTime time;
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
  door.AwaitHello(0);
  door.End(0, absl::UnavailableError("gone"));
  ASSERT_TRUE(losing.Wait());
  stream->Park();
  const int asked = time.calls;
  parked.Open();
  ASSERT_TRUE(over.Wait());
  EXPECT_EQ(time.calls, asked);
}

}  // namespace
}  // namespace tandem::gateway
