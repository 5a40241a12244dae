#include "services/runtime/grpc_server.h"

#include <absl/strings/str_cat.h>
#include <grpcpp/generic/generic_stub.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/support/byte_buffer.h>
#include <gtest/gtest.h>

#include "services/runtime/mutex.h"
#include "tandem/v1/admin.grpc.pb.h"

namespace tandem {
namespace {

// Answers with a model name of `bytes` bytes.
class BigAdmin final : public v1::Admin::Service {
 public:
  explicit BigAdmin(size_t bytes) : bytes_(bytes) {}
  grpc::Status Status(grpc::ServerContext*, const v1::StatusRequest*,
                      v1::StatusReply* reply) override {
    reply->set_reason(std::string(bytes_, 'x'));
    return grpc::Status::OK;
  }

 private:
  size_t bytes_;
};

std::chrono::system_clock::time_point Soon() {
  return std::chrono::system_clock::now() + std::chrono::seconds(30);
}

// Calls grpc.health.v1.Health/Check of the whole server (an empty request) without its generated
// code: the reply of a serving server is field 1, varint 1.
std::string CheckHealth(const std::shared_ptr<grpc::Channel>& channel) {
  grpc::GenericStub stub(channel);
  grpc::ClientContext context;
  context.set_deadline(Soon());
  context.set_wait_for_ready(true);
  const grpc::Slice nothing;
  const grpc::ByteBuffer request(&nothing, 1);
  grpc::ByteBuffer reply;
  Mutex mu;
  CondVar answered;
  bool done = false;
  grpc::Status result;
  stub.UnaryCall(&context, "/grpc.health.v1.Health/Check", grpc::StubOptions(), &request, &reply,
                 [&](grpc::Status status) {
                   MutexLock lock(mu);
                   result = status;
                   done = true;
                   answered.NotifyAll();
                 });
  MutexLock lock(mu);
  while (!done) answered.Wait(lock);
  if (!result.ok())
    return absl::StrCat("error ", result.error_code(), ": ", result.error_message());
  std::vector<grpc::Slice> slices;
  EXPECT_TRUE(reply.Dump(&slices).ok());
  std::string bytes;
  for (const grpc::Slice& slice : slices)
    bytes.append(reinterpret_cast<const char*>(slice.begin()), slice.size());
  return bytes;
}

TEST(GrpcServer, AnswersHealthChecksAndSaysWhenItDrains) {
  BigAdmin admin(1);
  absl::StatusOr<GrpcServer> server = StartGrpcServer("127.0.0.1:0", {&admin}, LinkSecurity());
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_GT(server->port, 0);
  const auto channel = MakeChannel(absl::StrCat("127.0.0.1:", server->port));
  EXPECT_EQ(CheckHealth(channel), "\x08\x01");  // SERVING
  server->server->GetHealthCheckService()->SetServingStatus(false);
  EXPECT_EQ(CheckHealth(channel), "\x08\x02");  // NOT_SERVING
}

TEST(GrpcServer, TakenPortIsAnErrorThatNamesTheAddress) {
  BigAdmin admin(1), other(1);
  absl::StatusOr<GrpcServer> server = StartGrpcServer("127.0.0.1:0", {&admin}, LinkSecurity());
  ASSERT_TRUE(server.ok()) << server.status();
  const std::string address = absl::StrCat("127.0.0.1:", server->port);
  const absl::Status second = StartGrpcServer(address, {&other}, LinkSecurity()).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(second.message()).find(address), std::string::npos) << second;
}

TEST(GrpcServer, MessagesPastGrpcsDefaultOfFourMegabytesPassAndPastOurLimitDoNot) {
  BigAdmin admin(8 << 20), huge(kMaxFrameBytes);
  absl::StatusOr<GrpcServer> server = StartGrpcServer("127.0.0.1:0", {&admin}, LinkSecurity());
  ASSERT_TRUE(server.ok()) << server.status();
  absl::StatusOr<GrpcServer> huge_server = StartGrpcServer("127.0.0.1:0", {&huge}, LinkSecurity());
  ASSERT_TRUE(huge_server.ok()) << huge_server.status();
  const auto call = [](int port) {
    auto stub = v1::Admin::NewStub(MakeChannel(absl::StrCat("127.0.0.1:", port)));
    grpc::ClientContext context;
    context.set_deadline(Soon());
    context.set_wait_for_ready(true);
    v1::StatusReply reply;
    return stub->Status(&context, {}, &reply);
  };
  const grpc::Status large = call(server->port);
  EXPECT_TRUE(large.ok()) << large.error_message();
  EXPECT_EQ(call(huge_server->port).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST(MakeChannel, ReachesAServerThatCameLater) {
  BigAdmin admin(1);
  int port = 0;
  {
    absl::StatusOr<GrpcServer> first = StartGrpcServer("127.0.0.1:0", {&admin}, LinkSecurity());
    ASSERT_TRUE(first.ok()) << first.status();
    port = first->port;
  }
  const auto channel = MakeChannel(absl::StrCat("127.0.0.1:", port));
  channel->GetState(/*try_to_connect=*/true);
  ASSERT_TRUE(channel->WaitForStateChange(GRPC_CHANNEL_IDLE, Soon()));
  BigAdmin again(1);
  absl::StatusOr<GrpcServer> second =
      StartGrpcServer(absl::StrCat("127.0.0.1:", port), {&again}, LinkSecurity());
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_TRUE(channel->WaitForConnected(Soon()));
}

}  // namespace
}  // namespace tandem
