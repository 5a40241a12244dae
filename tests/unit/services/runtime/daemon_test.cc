#include "services/runtime/daemon.h"

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>
#include <prometheus/counter.h>
#include <sys/wait.h>
#include <unistd.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <csignal>
#include <vector>

#include "services/runtime/grpc_server.h"
#include "services/runtime/mutex.h"
#include "tandem/v1/admin.grpc.pb.h"
#include "tests/fakes/certificates.h"

namespace tandem {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;

struct Reply {
  int status = 0;
  std::string body;
};

Reply Fetch(int port, const std::string& target, http::verb verb = http::verb::get) {
  asio::io_context io;
  asio::ip::tcp::socket socket(io);
  socket.connect({asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>(port)});
  http::request<http::empty_body> request(verb, target, 11);
  request.set(http::field::host, "localhost");
  http::write(socket, request);
  boost::beast::flat_buffer buffer;
  http::response<http::string_body> response;
  http::read(socket, buffer, response);
  return {static_cast<int>(response.result_int()), response.body()};
}

TEST(ServeHealth, LivezIsOkAndReadyzTellsTheReason) {
  Mutex mu;
  std::string reason = "no attention worker";
  auto server = ServeHealth("127.0.0.1:0", [&] {
    MutexLock lock(mu);
    return reason;
  });
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(Fetch((*server)->port, "/livez").status, 200);
  EXPECT_EQ(Fetch((*server)->port, "/readyz").status, 503);
  EXPECT_EQ(Fetch((*server)->port, "/readyz").body, "no attention worker\n");
  {
    MutexLock lock(mu);
    reason.clear();
  }
  EXPECT_EQ(Fetch((*server)->port, "/readyz").status, 200);
  EXPECT_EQ(Fetch((*server)->port, "/metrics").status, 404);
  EXPECT_EQ(Fetch((*server)->port, "/livez", http::verb::post).status, 405);
}

TEST(ServeHealth, BadOrTakenAddressIsAnErrorThatNamesIt) {
  EXPECT_EQ(ServeHealth("nonsense", [] { return ""; }).status(),
            absl::InvalidArgumentError("'nonsense' is no address:port"));
  EXPECT_EQ(ServeHealth("127.0.0.1:70000", [] { return ""; }).status().code(),
            absl::StatusCode::kInvalidArgument);
  auto first = ServeHealth("127.0.0.1:0", [] { return ""; });
  ASSERT_TRUE(first.ok()) << first.status();
  const std::string address = absl::StrCat("127.0.0.1:", (*first)->port);
  const absl::Status second = ServeHealth(address, [] { return ""; }).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(second.message()).find(address), std::string::npos) << second;
}

TEST(ServeHealth, DropsAHeadOfMoreThanItsBoundAndServesOn) {
  auto server = ServeHealth("127.0.0.1:0", [] { return ""; });
  ASSERT_TRUE(server.ok()) << server.status();
  asio::io_context io;
  asio::ip::tcp::socket socket(io);
  socket.connect({asio::ip::make_address("127.0.0.1"), static_cast<uint16_t>((*server)->port)});
  boost::system::error_code error;
  const std::string flood = "GET /livez HTTP/1.1\r\nx: " + std::string(1 << 20, 'x');
  asio::write(socket, asio::buffer(flood), error);
  char byte;
  asio::read(socket, asio::buffer(&byte, 1), error);
  EXPECT_TRUE(error);  // closed, without an answer
  EXPECT_EQ(Fetch((*server)->port, "/livez").status, 200);
}

class NamedAdmin final : public v1::Admin::Service {
 public:
  grpc::Status Status(grpc::ServerContext*, const v1::StatusRequest*,
                      v1::StatusReply* reply) override {
    reply->set_router_id("r-1");
    return grpc::Status::OK;
  }
};

TEST(ServeAdmin, AnswersHttpAndGrpcOnOnePort) {
  NamedAdmin admin;
  auto server = ServeAdmin(
      "127.0.0.1:0", [] { return "starting"; }, {&admin}, LinkSecurity());
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(Fetch((*server)->port, "/livez").status, 200);
  for (int i = 0; i < 3; i++) {  // each over a connection of its own
    auto stub = v1::Admin::NewStub(MakeChannel(absl::StrCat("127.0.0.1:", (*server)->port)));
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
    context.set_wait_for_ready(true);
    v1::StatusReply reply;
    const grpc::Status status = stub->Status(&context, {}, &reply);
    ASSERT_TRUE(status.ok()) << status.error_message();
    EXPECT_EQ(reply.router_id(), "r-1");
  }
  EXPECT_EQ(Fetch((*server)->port, "/readyz").body, "starting\n");
}

grpc::Status AskAdmin(int port, const LinkSecurity& security) {
  auto stub = v1::Admin::NewStub(MakeChannel(absl::StrCat("127.0.0.1:", port), security));
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(30));
  v1::StatusReply reply;
  return stub->Status(&context, {}, &reply);
}

TEST(ServeAdmin, WithTlsGrpcNeedsACertificateAndHealthDoesNot) {
  const test::TestAuthority authority("authority");
  const test::TestTlsFiles files("files", authority.Issue("tandem"), authority);
  const auto security = LinkSecurity::Make(files.files);
  ASSERT_TRUE(security.ok()) << security.status();
  NamedAdmin admin;
  auto server = ServeAdmin(
      "127.0.0.1:0", [] { return "starting"; }, {&admin}, *security);
  ASSERT_TRUE(server.ok()) << server.status();
  const grpc::Status admitted = AskAdmin((*server)->port, *security);
  EXPECT_TRUE(admitted.ok()) << admitted.error_message();
  EXPECT_EQ(Fetch((*server)->port, "/livez").status, 200);
  const grpc::Status plain = AskAdmin((*server)->port, LinkSecurity());
  EXPECT_EQ(plain.error_code(), grpc::StatusCode::UNAVAILABLE) << plain.error_message();
  const test::TestAuthority stranger("stranger");
  const test::TestTlsFiles strange("strange", stranger.Issue("tandem"), authority);
  const auto other = LinkSecurity::Make(strange.files);
  ASSERT_TRUE(other.ok()) << other.status();
  EXPECT_EQ(AskAdmin((*server)->port, *other).error_code(), grpc::StatusCode::UNAVAILABLE);
  EXPECT_TRUE(AskAdmin((*server)->port, *security).ok());
}

TEST(ServeAdmin, AnswersPagesWithJsonAndErrorsWithTheirStatus) {
  NamedAdmin admin;
  auto server =
      ServeAdmin("127.0.0.1:0", [] { return ""; }, {&admin}, LinkSecurity(),
                 {{"/admin/v1/echo", [](absl::string_view query) -> absl::StatusOr<std::string> {
                     if (query == "x=1") return std::string("{\"query\": 1}");
                     return absl::InvalidArgumentError(absl::StrCat("no \"", query, "\""));
                   }}});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_EQ(Fetch((*server)->port, "/admin/v1/echo?x=1").body, "{\"query\": 1}");
  const auto refused = Fetch((*server)->port, "/admin/v1/echo");
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.body, R"({"error":{"code":"INVALID_ARGUMENT","message":"no \"\""}})");
  EXPECT_EQ(Fetch((*server)->port, "/admin/v1/ech").status, 404);
  EXPECT_EQ(Fetch((*server)->port, "/livez").status, 200);
}

TEST(ServeMetrics, ShowsTheRegistryAndNamesATakenAddress) {
  auto registry = std::make_shared<prometheus::Registry>();
  prometheus::BuildCounter().Name("tandem_test_total").Register(*registry).Add({}).Increment(3);
  auto server = ServeMetrics("127.0.0.1:0", registry);
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_NE(Fetch((*server)->port, "/metrics").body.find("\ntandem_test_total 3"),
            std::string::npos);
  const std::string address = absl::StrCat("127.0.0.1:", (*server)->port);
  const absl::Status second = ServeMetrics(address, registry).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kUnavailable);
  EXPECT_NE(std::string(second.message()).find(address), std::string::npos) << second;
}

// Goal: the first signal is returned, the second ends the process though it still drains.
TEST(WaitForStopSignal, FirstIsReturnedAndSecondEndsTheProcess) {
  int said[2];
  ASSERT_EQ(pipe(said), 0);
  const pid_t child = fork();
  if (child == 0) {
    BlockStopSignals();
    if (write(said[1], "b", 1) != 1) _exit(3);
    const char got = WaitForStopSignal() == SIGTERM ? 't' : '?';
    if (write(said[1], &got, 1) != 1) _exit(3);
    for (;;) pause();  // drains forever
  }
  close(said[1]);
  char got = 0;
  ASSERT_EQ(read(said[0], &got, 1), 1);  // it has blocked them
  kill(child, SIGTERM);
  if (read(said[0], &got, 1) == 1) {
    EXPECT_EQ(got, 't');
    kill(child, SIGTERM);
  } else {
    ADD_FAILURE() << "the child died of its first signal";
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(WTERMSIG(status), SIGTERM);
  close(said[0]);
}

}  // namespace
}  // namespace tandem
