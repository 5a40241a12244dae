// What the router does not take: each refusal has its code and names the thing and the number.

#include "tests/integration/router_support.h"

namespace tandem::test {
namespace {

using RouterRefusal = RouterTest;

std::string MessageOf(const absl::Status& status) { return std::string(status.message()); }

TEST_F(RouterRefusal, WorkerOfAnotherModelOrClassIsRefusedWithTheReason) {
  StartRouter();
  FakeWorker member(address(), WorkerNamed("a-1", "paf"));
  ASSERT_TRUE(member.AwaitRegistered().ok());
  v1::Registration other_model = WorkerNamed("a-2", "paf");
  other_model.set_model("other");
  FakeWorker wrong_model(address(), other_model);
  EXPECT_EQ(wrong_model.AwaitRegistered(),
            absl::NotFoundError("worker a-2 serves model 'other', this router 'fake-model'"));
  EXPECT_EQ(wrong_model.AwaitEnd().code(), absl::StatusCode::kNotFound);
  v1::Registration other_class = WorkerNamed("f-1", "f");
  other_class.mutable_numerics()->set_ffn("other/whole");
  FakeWorker wrong_class(address(), other_class);
  const absl::Status refused = wrong_class.AwaitRegistered();
  EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_NE(MessageOf(refused).find("'other/whole', that of worker a-1 is 'fake/whole'"),
            std::string::npos)
      << refused;
  v1::Registration other_shape = WorkerNamed("f-2", "f");
  other_shape.mutable_dimensions()->set_hidden(32);
  FakeWorker wrong_shape(address(), other_shape);
  EXPECT_NE(MessageOf(wrong_shape.AwaitRegistered()).find("hidden 32"), std::string::npos);
}

TEST_F(RouterRefusal, MalformedRegistrationEndsTheStreamWithInvalidArgument) {
  StartRouter();
  const auto refused = [&](const v1::Registration& registration) {
    FakeWorker worker(address(), registration);
    const absl::Status status = worker.AwaitRegistered();
    EXPECT_EQ(worker.AwaitEnd().code(), absl::StatusCode::kInvalidArgument) << status;
    return MessageOf(status);
  };
  v1::Registration bad = WorkerNamed("w-1", "paf");
  bad.set_protocol_version(2);
  EXPECT_EQ(refused(bad), "worker w-1 speaks protocol version 2, this router 1");
  bad = WorkerNamed("", "paf");
  EXPECT_EQ(refused(bad), "registration.worker_id is empty");
  bad = WorkerNamed(std::string(129, 'w'), "paf");
  EXPECT_EQ(refused(bad), "registration.worker_id has 129 bytes; at most 128 are taken");
  bad = WorkerNamed("w-1", "paf");
  bad.add_stages(static_cast<v1::Stage>(9));
  EXPECT_EQ(refused(bad), "registration.stages holds unknown stage 9");
  bad = WorkerNamed("w-1", "paf");
  bad.clear_incarnation();
  EXPECT_EQ(refused(bad), "registration.incarnation is 0");
  EXPECT_EQ(Status().workers_size(), 0);
}

TEST_F(RouterRefusal, FirstMessageThatIsNoRegistrationAndASecondOneEndTheStream) {
  StartRouter();
  auto stub = v1::Registry::NewStub(MakeChannel(address()));
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  auto stream = stub->Register(&context);
  v1::WorkerMessage message;
  message.mutable_heartbeat();
  stream->Write(message);
  v1::RouterCommand reply;
  while (stream->Read(&reply)) {}
  EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  FakeWorker worker(address(), WorkerNamed("w-1", "paf"));
  ASSERT_TRUE(worker.AwaitRegistered().ok());
  *message.mutable_registration() = WorkerNamed("w-1", "paf");
  worker.Send(message);
  EXPECT_EQ(worker.AwaitEnd(), absl::InvalidArgumentError("a second registration on one stream"));
  FakeWorker empty(address(), WorkerNamed("w-2", "paf"));
  ASSERT_TRUE(empty.AwaitRegistered().ok());
  empty.Send(v1::WorkerMessage());
  EXPECT_EQ(empty.AwaitEnd(), absl::InvalidArgumentError("a message of unknown kind"));
}

TEST_F(RouterRefusal, GatewayWithoutHelloOfAnotherVersionOrModelIsRefused) {
  StartRouter();
  v1::GatewayMessage no_hello;
  *no_hello.mutable_generate() = RequestNamed("r-1");
  EXPECT_EQ(FakeGateway(address(), no_hello).AwaitStreamEnd(),
            absl::InvalidArgumentError("the first message of a Generate stream is its hello"));
  v1::GatewayHello hello = HelloFrom("g-1");
  hello.set_protocol_version(7);
  EXPECT_EQ(FakeGateway(address(), hello).AwaitStreamEnd(),
            absl::InvalidArgumentError("gateway g-1 speaks protocol version 7, this router 1"));
  hello = HelloFrom("g-1");
  hello.set_model("other");
  EXPECT_EQ(FakeGateway(address(), hello).AwaitStreamEnd().code(), absl::StatusCode::kNotFound);
  FakeGateway twice(address(), HelloFrom("g-2"));
  v1::GatewayMessage again;
  *again.mutable_hello() = HelloFrom("g-2");
  twice.Send(again);
  EXPECT_EQ(twice.AwaitStreamEnd(), absl::InvalidArgumentError("a second hello on one stream"));
}

TEST_F(RouterRefusal, RequestPastALimitEndsByItselfAndTheStreamGoesOn) {
  router::RouterConfig config = TestRouterConfig();
  config.max_prompt_tokens = 100;
  StartRouter(config);
  FakeWorker worker(address(), WorkerNamed("w-1", "paf"));
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitState(true);
  const auto refused = [&](const v1::GenerateRequest& request) {
    gateway.Generate(request);
    const v1::RouterSequenceEnd end =
        gateway.AwaitEnd(request.request_id(), request.choices(0).choice());
    EXPECT_EQ(end.status().code(), static_cast<int>(absl::StatusCode::kInvalidArgument));
    return end.status().message();
  };
  EXPECT_EQ(refused(RequestNamed("long", 101)),
            "prompt_ids with emitted_ids has 101 entries; max_prompt_tokens is 100");
  EXPECT_EQ(refused(RequestNamed("empty", 0)), "prompt_ids is empty");
  v1::GenerateRequest twice = RequestNamed("twice", 4, 2);
  twice.mutable_choices(1)->set_choice(0);
  EXPECT_EQ(refused(twice), "choice 0 stands in choices twice");
  v1::GenerateRequest zero = RequestNamed("zero");
  zero.mutable_stop()->set_max_tokens(0);
  EXPECT_EQ(refused(zero), "stop.max_tokens is 0");
  gateway.Generate(RequestNamed("good"));
  EXPECT_EQ(gateway.AwaitPlaced("good").attention().worker_id(), "w-1");
}

TEST_F(RouterRefusal, RequestThatCannotBeAnsweredEndsTheStream) {
  StartRouter();
  FakeGateway nameless(address(), HelloFrom("g-1"));
  nameless.Generate(RequestNamed(""));
  EXPECT_EQ(nameless.AwaitStreamEnd(), absl::InvalidArgumentError("request_id is empty"));
  FakeGateway long_name(address(), HelloFrom("g-2"));
  long_name.Generate(RequestNamed(std::string(129, 'r')));
  EXPECT_EQ(long_name.AwaitStreamEnd(),
            absl::InvalidArgumentError("request_id has 129 bytes; at most 128 are taken"));
  FakeGateway many(address(), HelloFrom("g-3"));
  many.Generate(RequestNamed("r-1", 4, 129));
  EXPECT_EQ(many.AwaitStreamEnd(),
            absl::InvalidArgumentError("choices has 129 entries; max_choices is 128"));
}

TEST_F(RouterRefusal, FullQueueAnswersResourceExhaustedWithRetryAfter) {
  router::RouterConfig config = TestRouterConfig();
  config.max_queued_requests = 2;
  StartRouter(config);
  FakeGateway gateway(address(), HelloFrom("g-1"));
  gateway.AwaitWelcome();
  for (int i = 0; i < 3; i++) gateway.Generate(RequestNamed(absl::StrCat("r-", i)));
  const v1::RouterSequenceEnd end = gateway.AwaitEnd("r-2");
  EXPECT_EQ(end.status().code(), static_cast<int>(absl::StatusCode::kResourceExhausted));
  EXPECT_GT(end.retry_after_seconds(), 0);
  FakeWorker worker(address(), WorkerNamed("w-1", "paf"));
  gateway.AwaitPlaced("r-0");
  gateway.AwaitPlaced("r-1");
}

TEST_F(RouterRefusal, OversizedMessageEndsItsStreamAndTheRouterServesOn) {
  StartRouter();
  v1::GenerateRequest huge = RequestNamed("huge");
  huge.mutable_prompt_ids()->Resize(20 << 20, 300'000'000);  // five bytes each: past kMaxFrameBytes
  auto channel = grpc::CreateChannel(address(), grpc::InsecureChannelCredentials());
  auto stub = v1::Router::NewStub(channel);
  grpc::ClientContext context;
  context.set_wait_for_ready(true);
  auto stream = stub->Generate(&context);
  v1::GatewayMessage message;
  *message.mutable_hello() = HelloFrom("g-1");
  stream->Write(message);
  *message.mutable_generate() = huge;
  stream->Write(message);
  v1::RouterMessage reply;
  while (stream->Read(&reply)) {}
  EXPECT_FALSE(stream->Finish().ok());
  FakeWorker worker(address(), WorkerNamed("w-1", "paf"));
  FakeGateway gateway(address(), HelloFrom("g-2"));
  gateway.AwaitState(true);
  gateway.Generate(RequestNamed("good"));
  gateway.AwaitPlaced("good");
}

TEST_F(RouterRefusal, TakenPortIsAnErrorThatNamesTheAddress) {
  StartRouter();
  router::RouterConfig config = TestRouterConfig();
  config.listen = address();
  const auto second = router::RouterDaemon::Start(config, time_);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(MessageOf(second.status()).find(address()), std::string::npos) << second.status();
}

}  // namespace
}  // namespace tandem::test
