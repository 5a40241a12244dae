// The HTTP servers of daemon.h: one thread, a bounded number of connections, each with a time-out.

#include <absl/strings/numbers.h>
#include <absl/strings/str_cat.h>
#include <prometheus/text_serializer.h>
#include <sys/socket.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <boost/json.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <thread>
#include <utility>

#include "services/runtime/daemon.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/http_status.h"
#include "services/runtime/utf8.h"

namespace tandem {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using Tcp = asio::ip::tcp;

constexpr int kMaxHttpConnections = 64;                    // later ones are closed at once
constexpr std::chrono::seconds kHttpConnectionTimeout{5};  // without progress
constexpr std::chrono::milliseconds kAcceptRetry{100};
constexpr uint32_t kMaxHttpHeaderBytes = 8192;

struct Page {
  http::status status = http::status::ok;
  std::string body;
  const char* content_type = "text/plain";
};
using Pages = std::function<Page(absl::string_view target)>;

// Which connections are gRPC's, and who takes them.
struct GrpcDoor {
  absl::string_view first_bytes;     // of such a connection
  std::function<void(int fd)> take;  // owns the descriptor from then on; empty: no gRPC here
};
// HTTP/2 begins with "PRI * HTTP/2.0" (RFC 9113, section 3.4), in one segment; a TLS connection
// with a handshake record (RFC 8446, section 5.1: type 22, version 3.x). No HTTP/1 method of ours
// begins as either.
constexpr absl::string_view kHttp2Begins = "PRI", kTlsBegins = "\x16\x03";

http::response<http::string_body> Answer(const http::request<http::empty_body>& request,
                                         const Pages& pages) {
  http::response<http::string_body> response(http::status::ok, request.version());
  Page page;
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    page = {http::status::method_not_allowed, "only GET and HEAD\n"};
    response.set(http::field::allow, "GET, HEAD");
  } else {
    page = pages(absl::string_view(request.target().data(), request.target().size()));
  }
  response.result(page.status);
  response.set(http::field::content_type, page.content_type);
  response.keep_alive(request.keep_alive());
  response.body() = std::move(page.body);
  response.prepare_payload();
  if (request.method() == http::verb::head) response.body().clear();
  return response;
}

Pages HealthPages(std::function<std::string()> not_ready_reason) {
  return [not_ready_reason = std::move(not_ready_reason)](absl::string_view target) -> Page {
    if (target == "/livez") return {http::status::ok, "ok\n"};
    if (target != "/readyz") return {http::status::not_found, "only /livez and /readyz\n"};
    const std::string reason = not_ready_reason();
    if (reason.empty()) return {http::status::ok, "ok\n"};
    return {http::status::service_unavailable, absl::StrCat(reason, "\n")};
  };
}

Page JsonAnswer(const absl::StatusOr<std::string>& body) {
  if (body.ok()) return {http::status::ok, *body, "application/json"};
  const boost::json::object error = {{"error",
                                      {{"code", absl::StatusCodeToString(body.status().code())},
                                       {"message", ToValidUtf8(body.status().message())}}}};
  return {http::int_to_status(static_cast<unsigned>(HttpStatus(body.status().code()))),
          boost::json::serialize(error), "application/json"};
}

Pages AdminPages(std::function<std::string()> not_ready_reason, std::vector<JsonPage> pages) {
  return [health = HealthPages(std::move(not_ready_reason)),
          pages = std::move(pages)](absl::string_view target) -> Page {
    const size_t question = target.find('?');
    const absl::string_view query =
        question == absl::string_view::npos ? "" : target.substr(question + 1);
    for (const JsonPage& page : pages) {
      if (page.path == target.substr(0, question)) return JsonAnswer(page.answer(query));
    }
    return health(target);
  };
}

Pages MetricsPages(std::shared_ptr<prometheus::Registry> registry) {
  return [registry = std::move(registry)](absl::string_view target) -> Page {
    if (target != "/metrics") return {http::status::not_found, "only /metrics\n"};
    return {http::status::ok, prometheus::TextSerializer().Serialize(registry->Collect()),
            "text/plain; version=0.0.4; charset=utf-8"};
  };
}

// One connection: read, answer, again.
class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Tcp::socket socket, Pages pages, GrpcDoor grpc, int& connections)
      : stream_(std::move(socket)),
        first_bytes_(stream_.get_executor()),
        pages_(std::move(pages)),
        grpc_(std::move(grpc)),
        connections_(connections) {
    connections_++;
  }
  ~Session() { connections_--; }

  void Start() {
    if (!grpc_.take) return Read();
    first_bytes_.expires_after(kHttpConnectionTimeout);
    first_bytes_.async_wait([self = shared_from_this()](beast::error_code error) {
      if (!error) self->stream_.close();
    });
    stream_.socket().async_wait(Tcp::socket::wait_read,
                                [self = shared_from_this()](beast::error_code error) {
                                  self->first_bytes_.cancel();
                                  if (!error) self->Sort();
                                });
  }

  void Read() {
    parser_.emplace();
    parser_->header_limit(kMaxHttpHeaderBytes);
    stream_.expires_after(kHttpConnectionTimeout);
    http::async_read(stream_, buffer_, *parser_,
                     [self = shared_from_this()](beast::error_code error, size_t) {
                       if (!error) self->Write();
                     });
  }

 private:
  void Sort() {
    char start[kHttp2Begins.size()] = {};
    const ssize_t got = ::recv(stream_.socket().native_handle(), start, grpc_.first_bytes.size(),
                               MSG_PEEK | MSG_DONTWAIT);
    if (got <= 0 || absl::string_view(start, got) != grpc_.first_bytes) return Read();
    beast::error_code error;
    stream_.socket().native_non_blocking(true, error);
    const int fd = error ? -1 : stream_.socket().release(error);
    if (!error) grpc_.take(fd);
  }

  void Write() {
    response_ = Answer(parser_->get(), pages_);
    stream_.expires_after(kHttpConnectionTimeout);
    http::async_write(stream_, response_,
                      [self = shared_from_this()](beast::error_code error, size_t) {
                        if (!error && self->response_.keep_alive()) self->Read();
                      });
  }

  beast::tcp_stream stream_;
  asio::steady_timer first_bytes_;
  beast::flat_buffer buffer_{kMaxHttpHeaderBytes * 2};
  std::optional<http::request_parser<http::empty_body>> parser_;
  http::response<http::string_body> response_;
  Pages pages_;
  GrpcDoor grpc_;
  int& connections_;  // of the server; touched on its thread only
};

class HttpServer final : public ListeningServer {
 public:
  HttpServer(const Tcp::endpoint& at, Pages pages, GrpcServer grpc, bool tls)
      : grpc_(std::move(grpc)), acceptor_(io_, at), pages_(std::move(pages)) {
    if (grpc_.acceptor != nullptr) {
      door_ = {tls ? kTlsBegins : kHttp2Begins, [this](int fd) {
                 grpc::experimental::ExternalConnectionAcceptor::NewConnectionParameters made;
                 made.fd = fd;
                 grpc_.acceptor->HandleNewConnection(&made);
               }};
    }
    port = acceptor_.local_endpoint().port();
    Accept();
    thread_ = std::thread([this] { io_.run(); });
  }
  ~HttpServer() override {
    io_.stop();
    thread_.join();
    if (grpc_.server != nullptr)
      grpc_.server->Shutdown(std::chrono::system_clock::time_point());  // cancels its calls
  }

 private:
  void Accept() {
    acceptor_.async_accept([this](beast::error_code error, Tcp::socket socket) {
      if (error == asio::error::operation_aborted) return;
      if (error) return AcceptLater();
      if (connections_ < kMaxHttpConnections) {
        std::make_shared<Session>(std::move(socket), pages_, door_, connections_)->Start();
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

  GrpcServer grpc_;  // null for ServeHealth
  GrpcDoor door_;
  int connections_ = 0;  // outlives io_, whose destructor ends the sessions
  asio::io_context io_{1};
  Tcp::acceptor acceptor_;
  asio::steady_timer retry_{io_};
  Pages pages_;
  std::thread thread_;
};

// "127.0.0.1:9300", "[::1]:9300".
absl::StatusOr<Tcp::endpoint> ParseEndpoint(const std::string& listen) {
  const size_t colon = listen.rfind(':');
  uint32_t port = 0;
  if (colon == std::string::npos || !absl::SimpleAtoi(listen.substr(colon + 1), &port) ||
      port > 65535) {
    return absl::InvalidArgumentError(absl::StrCat("'", listen, "' is no address:port"));
  }
  std::string host = listen.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']')
    host = host.substr(1, host.size() - 2);
  beast::error_code error;
  const asio::ip::address address = asio::ip::make_address(host, error);
  if (error)
    return absl::InvalidArgumentError(
        absl::StrCat("'", host, "' in '", listen, "' is no IP address"));
  return Tcp::endpoint(address, static_cast<uint16_t>(port));
}

absl::StatusOr<std::shared_ptr<ListeningServer>> Serve(absl::string_view what,
                                                       const std::string& listen, Pages pages,
                                                       GrpcServer grpc = {}, bool tls = false) {
  absl::StatusOr<Tcp::endpoint> at = ParseEndpoint(listen);
  if (!at.ok()) return at.status();
  try {
    return std::shared_ptr<ListeningServer>(
        std::make_shared<HttpServer>(*at, std::move(pages), std::move(grpc), tls));
  } catch (const std::exception& error) {
    return absl::UnavailableError(
        absl::StrCat(what, " cannot listen on ", listen, ": ", error.what()));
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<ListeningServer>> ServeMetrics(
    const std::string& listen, const std::shared_ptr<prometheus::Registry>& registry) {
  return Serve("metrics", listen, MetricsPages(registry));
}

absl::StatusOr<std::shared_ptr<ListeningServer>> ServeHealth(
    const std::string& listen, std::function<std::string()> not_ready_reason) {
  return Serve("health", listen, HealthPages(std::move(not_ready_reason)));
}

absl::StatusOr<std::shared_ptr<ListeningServer>> ServeAdmin(
    const std::string& listen, std::function<std::string()> not_ready_reason,
    const std::vector<grpc::Service*>& services, const LinkSecurity& security,
    std::vector<JsonPage> pages) {
  absl::StatusOr<GrpcServer> grpc = StartGrpcServer("", services, security);
  if (!grpc.ok()) return grpc.status();
  return Serve("admin", listen, AdminPages(std::move(not_ready_reason), std::move(pages)),
               *std::move(grpc), security.tls());
}

}  // namespace tandem
