// The two sides of a long-lived gRPC stream, over real gRPC: order, bounds, ends.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "services/runtime/client_stream.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/server_stream.h"
#include "tandem/v1/step_tokens.grpc.pb.h"
#include "tests/integration/rpc_support.h"

namespace tandem {
namespace {

using test::Watched;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::StartsWith;

v1::TokenControl Ack(uint64_t step) {
  v1::TokenControl message;
  message.mutable_ack()->set_step(step);
  return message;
}

// Two streams at most; remembers what it heard, and answers each message.
class Service final : public v1::Tokens::CallbackService {
 public:
  class Stream final : public ServerStream<v1::TokenControl, v1::TokenStep> {
   public:
    Stream(ServerStreamOptions options, Service& service)
        : ServerStream(std::move(options)), service_(service) {}

   private:
    bool OnMessage(v1::TokenControl& message) override {
      service_.heard.Change([&](auto& all) { all.push_back(message.ack().step()); });
      Write(v1::TokenStep());
      return true;
    }
    void OnGone(const std::string& reason) override {
      service_.gone.Change([&](auto& all) { all.push_back(reason); });
    }
    Service& service_;
  };

  grpc::ServerBidiReactor<v1::TokenControl, v1::TokenStep>* StepTokens(
      grpc::CallbackServerContext* context) override {
    if (!bounded) return StartStream<Stream, v1::TokenControl, v1::TokenStep>(streams, *this);
    auto stream = std::make_shared<Stream>(
        ServerStreamOptions{.place = *streams.Take(), .context = context, .max_queued_messages = 4},
        *this);
    stream->Start();
    opened.Change([&](auto& last) { last = stream; });
    return stream.get();
  }

  bool bounded = false;
  StreamCount streams{2};
  Watched<std::vector<uint64_t>> heard;
  Watched<std::vector<std::string>> gone;
  Watched<std::shared_ptr<Stream>> opened;
};

// Reads everything, or nothing after it was opened.
class Client final : public ClientStream<v1::TokenControl, v1::TokenStep> {
 public:
  explicit Client(const std::string& address) : stub_(v1::Tokens::NewStub(MakeChannel(address))) {}
  bool Open(std::optional<v1::TokenControl> first = std::nullopt) {
    return Start([this](grpc::ClientContext* context,
                        Reactor* reactor) { stub_->async()->StepTokens(context, reactor); },
                 std::move(first));
  }
  bool AwaitTold(const std::string& what) {
    return told.Await(what.c_str(), [&](const auto& all) {
      return std::find(all.begin(), all.end(), what) != all.end();
    });
  }
  std::function<void()> while_opening = [] {};
  Watched<std::vector<std::string>> told;
  Watched<std::optional<grpc::Status>> closed;

 private:
  void OnOpened() override {
    while_opening();
    Tell("opened");
  }
  bool OnMessage(v1::TokenStep&) override {
    Tell("a message");
    return true;
  }
  void Tell(const std::string& what) {
    told.Change([&](auto& all) { all.push_back(what); });
  }
  void OnClosed(const grpc::Status& status) override {
    closed.Change([&](auto& value) { value = status; });
  }
  const std::unique_ptr<v1::Tokens::Stub> stub_;
};

grpc::Status AwaitClosed(Client& client) {
  client.closed.Await("the stream's end", [](const auto& end) { return end.has_value(); });
  return client.closed.Get().value_or(grpc::Status::OK);
}

class GrpcStreams : public ::testing::Test {
 protected:
  std::shared_ptr<Client> Dial() { return std::make_shared<Client>(server_.address()); }
  Service service_;
  test::TestServer server_{{&service_}};
};

TEST_F(GrpcStreams, FirstMessageGoesAheadOfWhatWasWrittenBeforeTheStart) {
  auto client = Dial();
  client->Write(Ack(2));
  client->Write(Ack(3));
  ASSERT_TRUE(client->Open(Ack(1)));
  client->Write(Ack(4));
  service_.heard.Await("four messages", [](const auto& all) { return all.size() == 4; });
  EXPECT_THAT(service_.heard.Get(), ElementsAre(1, 2, 3, 4));
  client->Cancel();
  EXPECT_EQ(AwaitClosed(*client).error_code(), grpc::StatusCode::CANCELLED);
}

TEST_F(GrpcStreams, AStreamIsOpenedBeforeItsFirstMessageIsHeard) {
  auto client = Dial(), later = Dial();
  // The answer has long been there when a stream that is dialled after it has had its own.
  client->while_opening = [&] {
    service_.heard.Await("the question", [](const auto& all) { return all.size() == 1; });
    ASSERT_TRUE(later->Open(Ack(2)));
    later->AwaitTold("a message");
  };
  ASSERT_TRUE(client->Open(Ack(1)));
  client->AwaitTold("a message");
  client->AwaitTold("opened");
  EXPECT_THAT(client->told.Get(), ElementsAre("opened", "a message"));
  for (const auto& each : {client, later}) {
    each->Cancel();
    AwaitClosed(*each);
  }
}

TEST_F(GrpcStreams, StreamsPastTheBoundAreRefusedAndAPlaceIsGivenBack) {
  auto first = Dial(), second = Dial(), third = Dial();
  for (const auto& client : {first, second}) {
    ASSERT_TRUE(client->Open());
    client->AwaitTold("opened");
  }
  EXPECT_EQ(service_.streams.open(), 2u);
  ASSERT_TRUE(third->Open());
  const grpc::Status refused = AwaitClosed(*third);
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.error_message(), HasSubstr("max_streams: 2"));
  first->Cancel();
  second->Cancel();
  service_.streams.WaitForNone();
  auto fourth = Dial();
  ASSERT_TRUE(fourth->Open());
  fourth->AwaitTold("opened");
  fourth->Cancel();
  AwaitClosed(*fourth);
}

TEST_F(GrpcStreams, CancelledBeforeItsStartItNeverOpens) {
  auto client = Dial();
  client->Cancel();
  EXPECT_FALSE(client->Open());
}

TEST_F(GrpcStreams, APeerThatDoesNotReadEndsItsStreamAtTheBound) {
  service_.bounded = true;
  // A bare call, of which nothing is ever read.
  grpc::ClientContext context;
  auto stub = v1::Tokens::NewStub(MakeChannel(server_.address()));
  auto call = stub->StepTokens(&context);
  service_.opened.Await("the stream", [](const auto& stream) { return stream != nullptr; });
  const auto stream = service_.opened.Get();
  v1::TokenStep large;
  large.add_sequences()->mutable_ids()->Resize(200000, 1 << 20);
  for (int i = 0; i < 100 && service_.gone.Get().empty(); ++i) stream->Write(large);
  ASSERT_FALSE(service_.gone.Get().empty());
  EXPECT_THAT(service_.gone.Get()[0], StartsWith("4 messages are queued"));
  service_.streams.WaitForNone();  // the write that hung was cancelled
  context.TryCancel();
}

}  // namespace
}  // namespace tandem
