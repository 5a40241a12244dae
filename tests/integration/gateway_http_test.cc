// The gateway's HTTP server over real sockets, with a handler that answers, streams or waits as the
// path says.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/awaitable.hpp>
#include <memory>
#include <string>

#include "services/gateway/http/inbox.h"
#include "services/gateway/http/server.h"
#include "services/runtime/mutex.h"
#include "tests/fakes/http_connection.h"

namespace tandem::gateway {
namespace {

namespace asio = boost::asio;
using ::testing::HasSubstr;
using ::testing::StartsWith;

using Client = test::HttpConnection;
using test::kDeadlineSeconds;

class HttpServerTest : public ::testing::Test {
 protected:
  void Start(HttpLimits limits = {}) {
    auto started = HttpServer::Start(
        "127.0.0.1:0", limits,
        [this](HttpQuery query, HttpAnswer& answer) { return Handle(std::move(query), answer); },
        [](int status, const std::string& message) {
          return "{\"error\":" + std::to_string(status) + ",\"message\":\"" + message + "\"}";
        },
        [] { return std::string("ours"); });
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }

  asio::awaitable<void> Handle(HttpQuery query, HttpAnswer& answer) {
    if (query.path == "/wait") {
      auto inbox = std::make_shared<Inbox>(answer.executor(), 1);
      auto left = std::make_shared<bool>(false);
      answer.WatchClient([inbox, left] {
        *left = true;
        inbox->Wake();
      });
      (void)co_await answer.WriteEvents("data: begun\n\n");
      while (!*left) co_await inbox->Wait(Duration::Seconds(kDeadlineSeconds));
      MutexLock lock(mu_);
      clients_left_++;
      changed_.NotifyAll();
      co_return;
    }
    if (query.path == "/events") {
      (void)co_await answer.WriteEvents("data: one\n\n");
      (void)co_await answer.WriteEvents("data: two\n\n");
      (void)co_await answer.FinishEvents();
      co_return;
    }
    std::string body = query.method + " " + query.path + " " + query.request_id + " " +
                       std::to_string(query.body.size());
    (void)co_await answer.Reply(200, "text/plain", std::move(body), HttpHeaders());
  }

  Mutex mu_;
  CondVar changed_;
  int clients_left_ TANDEM_GUARDED_BY(mu_) = 0;
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersAndKeepsTheConnection) {
  Start();
  Client client(server_->port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(
        client.Send("POST /echo?x=1 HTTP/1.1\r\nHost: h\r\nx-request-id: mine-7\r\nContent-Length: "
                    "3\r\n\r\nabc"));
    const std::string answer = client.ReadUntil("mine-7 3");
    EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\nx-request-id: mine-7\r\n"));
    EXPECT_THAT(answer, HasSubstr("POST /echo mine-7 3"));
  }
}

TEST_F(HttpServerTest, IllFormedRequestIdIsReplaced) {
  Start();
  Client client(server_->port());
  ASSERT_TRUE(client.Send(
      "GET /a HTTP/1.1\r\nHost: h\r\nx-request-id: a b<c>\r\nConnection: close\r\n\r\n"));
  EXPECT_THAT(client.ReadAll(), HasSubstr("GET /a ours 0"));
}

TEST_F(HttpServerTest, StreamCarriesHeadersAndFirstEventTogetherAndEndsItsChunks) {
  Start();
  Client client(server_->port());
  ASSERT_TRUE(client.Send("GET /events HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"));
  const std::string answer = client.ReadAll();
  EXPECT_THAT(answer, HasSubstr("Content-Type: text/event-stream"));
  EXPECT_THAT(answer, HasSubstr("\r\n\r\nb\r\ndata: one\n\n\r\nb\r\ndata: two\n\n\r\n0\r\n\r\n"));
}

TEST_F(HttpServerTest, OldClientsGetAStreamWithoutChunks) {
  Start();
  Client client(server_->port());
  ASSERT_TRUE(client.Send("GET /events HTTP/1.0\r\n\r\n"));
  EXPECT_THAT(client.ReadAll(), ::testing::EndsWith("\r\n\r\ndata: one\n\ndata: two\n\n"));
}

TEST_F(HttpServerTest, ClientThatLeavesInMidStreamIsNoticedWhileNothingFlows) {
  Start();
  Client client(server_->port());
  ASSERT_TRUE(client.Send("GET /wait HTTP/1.1\r\nHost: h\r\n\r\n"));
  EXPECT_THAT(client.ReadUntil("begun"), HasSubstr("data: begun"));
  client.Close();
  MutexLock lock(mu_);
  while (clients_left_ == 0)
    ASSERT_TRUE(changed_.WaitFor(lock, std::chrono::seconds(kDeadlineSeconds)));
}

TEST_F(HttpServerTest, BodyOverTheLimitGets413AndIsRead) {
  Start({.max_body_bytes = 1000});
  Client named(server_->port());
  ASSERT_TRUE(named.Send("POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n" +
                         std::string(2000000, 'x')));
  EXPECT_THAT(named.ReadAll(),
              ::testing::AllOf(StartsWith("HTTP/1.1 413 "), HasSubstr("exceeds 1000 bytes")));
  Client chunked(server_->port());
  ASSERT_TRUE(
      chunked.Send("POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n" +
                   std::string(2000, 'x') + "\r\n0\r\n\r\n"));
  EXPECT_THAT(chunked.ReadAll(), StartsWith("HTTP/1.1 413 "));
}

TEST_F(HttpServerTest, MalformedHttpGets400AndLongHeaders431) {
  Start({.max_header_bytes = 2000});
  Client malformed(server_->port());
  ASSERT_TRUE(malformed.Send("this is no HTTP\r\n\r\n"));
  EXPECT_THAT(malformed.ReadAll(), StartsWith("HTTP/1.1 400 "));
  Client wide(server_->port());
  ASSERT_TRUE(wide.Send("GET / HTTP/1.1\r\nx: " + std::string(5000, 'y') + "\r\n\r\n"));
  EXPECT_THAT(wide.ReadAll(), StartsWith("HTTP/1.1 431 "));
}

TEST_F(HttpServerTest, SlowHeadersGet408) {
  Start({.header_timeout = Duration::Milliseconds(100)});
  Client client(server_->port());
  ASSERT_TRUE(client.Send("GET / HT"));
  EXPECT_THAT(client.ReadAll(), StartsWith("HTTP/1.1 408 "));
}

TEST_F(HttpServerTest, ThreeHundredConnectionsAtOnceAreAllServed) {
  Start();
  std::vector<std::unique_ptr<Client>> clients;
  for (int i = 0; i < 300; ++i) clients.push_back(std::make_unique<Client>(server_->port()));
  for (auto& client : clients)
    ASSERT_TRUE(client->connected() && client->Send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
  for (auto& client : clients)
    ASSERT_THAT(client->ReadUntil("GET /a ours 0"), HasSubstr("GET /a ours 0"));
}

TEST_F(HttpServerTest, ConnectionsOverTheLimitGet503) {
  Start({.max_connections = 1});
  Client first(server_->port());
  ASSERT_TRUE(first.Send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
  EXPECT_THAT(first.ReadUntil("ours 0"), HasSubstr("200 OK"));
  Client second(server_->port());
  ASSERT_TRUE(second.Send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
  EXPECT_THAT(second.ReadAll(), StartsWith("HTTP/1.1 503 "));
}

TEST_F(HttpServerTest, DrainClosesIdleConnectionsAndAcceptsNoMore) {
  Start();
  Client idle(server_->port());
  ASSERT_TRUE(idle.Send("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
  EXPECT_THAT(idle.ReadUntil("ours 0"), HasSubstr("200 OK"));
  const int port = server_->port();
  EXPECT_TRUE(server_->Drain(Duration::Seconds(kDeadlineSeconds)));
  EXPECT_EQ(idle.ReadAll(), "");
  EXPECT_EQ(server_->connections(), 0u);
  Client late(port);
  EXPECT_FALSE(late.connected());
}

TEST_F(HttpServerTest, DrainOfAServerThatNobodyUsesIsOverWhenItAcceptsNoMore) {
  for (int attempt = 0; attempt < 20; attempt++) {  // its threads may be quicker than we are
    Start();
    const int port = server_->port();
    EXPECT_TRUE(server_->Drain(Duration::Seconds(kDeadlineSeconds)));
    Client late(port);
    EXPECT_FALSE(late.connected());
  }
}

TEST(HttpServer, AddressThatCannotBeListenedOnIsNamed) {
  const auto started = HttpServer::Start("127.0.0.1:x", {}, {}, {}, {});
  EXPECT_THAT(std::string(started.status().message()), HasSubstr("127.0.0.1:x"));
}

}  // namespace
}  // namespace tandem::gateway
