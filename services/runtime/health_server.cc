// ServeHealth and ServeAdmin of daemon.h: one thread, a bounded number of connections, each with a time-out.

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <grpcpp/server_posix.h>
#include <sys/socket.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "services/runtime/daemon.h"
#include "services/runtime/grpc_server.h"

namespace tandem {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Tcp = asio::ip::tcp;

constexpr int kMaxHealthConnections = 64;                       // later ones are closed at once
constexpr std::chrono::seconds kHealthConnectionTimeout{5};     // without progress
constexpr std::chrono::milliseconds kAcceptRetry{100};
constexpr uint32_t kMaxHealthHeaderBytes = 8192;

using Ready = std::function<std::string()>;
using Http2Taker = std::function<void(int fd)>;  // owns the descriptor from then on

http::response<http::string_body> Answer(const http::request<http::empty_body>& request, const Ready& not_ready_reason) {
  http::response<http::string_body> response(http::status::ok, request.version());
  response.set(http::field::content_type, "text/plain");
  response.keep_alive(request.keep_alive());
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    response.result(http::status::method_not_allowed);
    response.set(http::field::allow, "GET, HEAD");
    response.body() = "only GET and HEAD\n";
  } else if (request.target() == "/livez") {
    response.body() = "ok\n";
  } else if (request.target() == "/readyz") {
    const std::string reason = not_ready_reason();
    if (!reason.empty()) response.result(http::status::service_unavailable);
    response.body() = reason.empty() ? "ok\n" : absl::StrCat(reason, "\n");
  } else {
    response.result(http::status::not_found);
    response.body() = "only /livez and /readyz\n";
  }
  response.prepare_payload();
  if (request.method() == http::verb::head) response.body().clear();
  return response;
}

// One connection: read, answer, again.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Tcp::socket socket, Ready not_ready_reason, Http2Taker take_http2, int& connections)
      : stream_(std::move(socket)),
        first_bytes_(stream_.get_executor()),
        not_ready_reason_(std::move(not_ready_reason)),
        take_http2_(std::move(take_http2)),
        connections_(connections) {
    connections_++;
  }
  ~Session() { connections_--; }

  void Start() {
    if (!take_http2_) return Read();
    first_bytes_.expires_after(kHealthConnectionTimeout);
    first_bytes_.async_wait([self = shared_from_this()](beast::error_code error) {
      if (!error) self->stream_.close();
    });
    stream_.socket().async_wait(Tcp::socket::wait_read, [self = shared_from_this()](beast::error_code error) {
      self->first_bytes_.cancel();
      if (!error) self->Sort();
    });
  }

  void Read() {
    parser_.emplace();
    parser_->header_limit(kMaxHealthHeaderBytes);
    stream_.expires_after(kHealthConnectionTimeout);
    http::async_read(stream_, buffer_, *parser_, [self = shared_from_this()](beast::error_code error, size_t) {
      if (!error) self->Write();
    });
  }

 private:
  // HTTP/2 begins with "PRI * HTTP/2.0" (RFC 9113, section 3.4), in one segment; no HTTP/1 method of ours does.
  void Sort() {
    char start[3] = {};
    const ssize_t got = ::recv(stream_.socket().native_handle(), start, sizeof(start), MSG_PEEK | MSG_DONTWAIT);
    if (got != sizeof(start) || absl::string_view(start, sizeof(start)) != "PRI") return Read();
    beast::error_code error;
    stream_.socket().native_non_blocking(true, error);
    const int fd = error ? -1 : stream_.socket().release(error);
    if (!error) take_http2_(fd);
  }

  void Write() {
    response_ = Answer(parser_->get(), not_ready_reason_);
    stream_.expires_after(kHealthConnectionTimeout);
    http::async_write(stream_, response_, [self = shared_from_this()](beast::error_code error, size_t) {
      if (!error && self->response_.keep_alive()) self->Read();
    });
  }

  beast::tcp_stream stream_;
  asio::steady_timer first_bytes_;
  beast::flat_buffer buffer_{kMaxHealthHeaderBytes * 2};
  std::optional<http::request_parser<http::empty_body>> parser_;
  http::response<http::string_body> response_;
  Ready not_ready_reason_;
  Http2Taker take_http2_;
  int& connections_;  // of the server; touched on its thread only
};

class HealthServer final : public ListeningServer {
 public:
  HealthServer(const Tcp::endpoint& at, Ready not_ready_reason, GrpcServer grpc)
      : grpc_(std::move(grpc)), acceptor_(io_, at), not_ready_reason_(std::move(not_ready_reason)) {
    if (grpc_.server != nullptr) {
      take_http2_ = [this](int fd) { grpc::AddInsecureChannelFromFd(grpc_.server.get(), fd); };
    }
    port = acceptor_.local_endpoint().port();
    Accept();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~HealthServer() override {
    io_.stop();
    thread_.join();
    if (grpc_.server != nullptr) grpc_.server->Shutdown(std::chrono::system_clock::time_point());  // cancels its calls
  }

 private:
  void Accept() {
    acceptor_.async_accept([this](beast::error_code error, Tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (error) return AcceptLater();
      if (connections_ < kMaxHealthConnections) {
        std::make_shared<Session>(std::move(socket), not_ready_reason_, take_http2_, connections_)->Start();
      }
      Accept();
    });
  }

  // Out of descriptors: accepting again at once would spin.
  void AcceptLater() {
    retry_.expires_after(kAcceptRetry);
    retry_.async_wait([this](beast::error_code error) {
      if (!error) Accept();
    });
  }

  GrpcServer grpc_;      // null for ServeHealth
  Http2Taker take_http2_;
  int connections_ = 0;  // outlives io_, whose destructor ends the sessions
  asio::io_context io_{1};
  Tcp::acceptor acceptor_;
  asio::steady_timer retry_{io_};
  Ready not_ready_reason_;
  std::thread thread_;
};

// "127.0.0.1:9300", "[::1]:9300".
absl::StatusOr<Tcp::endpoint> ParseEndpoint(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(listen.substr(colon + 1), &port) || port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("'", listen, "' is no address:port"));
  }
  std::string host = listen.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  beast::error_code error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  if (error) return absl::InvalidArgumentError(absl::StrCat("'", host, "' in '", listen, "' is no IP address"));
  return Tcp::endpoint(address, static_cast<uint16_t>(port));
}

absl::StatusOr<std::shared_ptr<ListeningServer>> Serve(const std::string& listen, Ready not_ready_reason,
                                                       GrpcServer grpc) {
  absl::StatusOr<Tcp::endpoint> at = ParseEndpoint(listen);
  if (!at.ok()) return at.status();
  try {
    return std::shared_ptr<ListeningServer>(
        std::make_shared<HealthServer>(*at, std::move(not_ready_reason), std::move(grpc)));
  } catch (const std::exception& error) {
    return absl::UnavailableError(absl::StrCat("health cannot listen on ", listen, ": ", error.what()));
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<ListeningServer>> ServeHealth(const std::string& listen,
                                                             std::function<std::string()> not_ready_reason) {
  return Serve(listen, std::move(not_ready_reason), GrpcServer());
}

absl::StatusOr<std::shared_ptr<ListeningServer>> ServeAdmin(const std::string& listen,
                                                            std::function<std::string()> not_ready_reason,
                                                            const std::vector<grpc::Service*>& services) {
  absl::StatusOr<GrpcServer> grpc = StartGrpcServer("", services);
  if (!grpc.ok()) return grpc.status();
  return Serve(listen, std::move(not_ready_reason), *std::move(grpc));
}

}  // namespace tandem
