#include "services/ctl/http_client.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <utility>

namespace tandem::ctl {
namespace {

// Accepts one connection, reads a request's headers and answers with fixed bytes; empty ones: it
// never answers.
class OneShotServer {
 public:
  explicit OneShotServer(std::string answer) : answer_(std::move(answer)) {
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof address;
    EXPECT_EQ(bind(fd_, reinterpret_cast<sockaddr*>(&address), size), 0);
    EXPECT_EQ(listen(fd_, 1), 0);
    getsockname(fd_, reinterpret_cast<sockaddr*>(&address), &size);
    address_ = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
    thread_ = std::thread([this] { Serve(); });
  }
  ~OneShotServer() {
    shutdown(fd_, SHUT_RDWR);
    thread_.join();
    close(fd_);
  }
  const std::string& address() const { return address_; }
  std::string request() {  // after the exchange
    return request_;
  }

 private:
  void Serve() {
    const int connection = accept(fd_, nullptr, nullptr);
    if (connection < 0) return;
    char piece[4096];
    while (request_.find("\r\n\r\n") == std::string::npos) {
      const ssize_t got = read(connection, piece, sizeof piece);
      if (got <= 0) break;
      request_.append(piece, static_cast<size_t>(got));
    }
    if (answer_.empty()) {
      while (read(connection, piece, sizeof piece) > 0) {}  // until the client gives up
    } else {
      [[maybe_unused]] const ssize_t wrote = write(connection, answer_.data(), answer_.size());
    }
    close(connection);
  }

  std::string answer_, address_, request_;
  int fd_ = -1;
  std::thread thread_;
};

TEST(HttpClient, GetReturnsStatusAndBody) {
  OneShotServer server("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 7\r\n\r\nnot yet");
  const absl::StatusOr<HttpReply> reply =
      HttpGet(server.address(), "/readyz", Duration::Seconds(30));
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->status, 503);
  EXPECT_EQ(reply->body, "not yet");
}

TEST(HttpClient, AChunkedBodyIsStreamed) {
  OneShotServer server(
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\ndata:\r\n3\r\n x\n\r\n0\r\n\r\n");
  std::string body;
  const absl::StatusOr<HttpReply> reply =
      HttpPostStreaming(server.address(), "/v1/x", "{}", Duration::Seconds(30),
                        [&](absl::string_view piece) { body.append(piece.data(), piece.size()); });
  ASSERT_TRUE(reply.ok()) << reply.status();
  EXPECT_EQ(reply->status, 200);
  EXPECT_EQ(body, "data: x\n");
}

TEST(HttpClient, NobodyThereIsUnavailable) {
  std::string address;
  { address = OneShotServer("x").address(); }
  EXPECT_EQ(HttpGet(address, "/", Duration::Seconds(30)).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(HttpClient, ABrokenReplyIsUnavailable) {
  OneShotServer server("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort");
  EXPECT_EQ(HttpGet(server.address(), "/", Duration::Seconds(30)).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST(HttpClient, SilenceEndsTheWait) {
  OneShotServer server("");
  EXPECT_EQ(HttpGet(server.address(), "/", Duration::Milliseconds(50)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

}  // namespace
}  // namespace tandem::ctl
