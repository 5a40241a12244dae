#include "services/gateway/http/connection.h"

#include <absl/strings/ascii.h>
#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <sys/socket.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/status.hpp>
#include <cerrno>
#include <chrono>
#include <utility>

namespace tandem::gateway {
namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr size_t kMaxDiscardedBytes =
    64 << 20;  // of a refused body, so that the client reads the answer and not a reset
constexpr size_t kMaxRequestIdBytes = 128;

std::chrono::nanoseconds Nanoseconds(Duration d) {
  return std::chrono::nanoseconds(d.nanoseconds());
}

bool WellFormedRequestId(absl::string_view id) {
  if (id.empty() || id.size() > kMaxRequestIdBytes) return false;
  for (const char c : id) {
    if (!absl::ascii_isalnum(c) && c != '-' && c != '_' && c != '.' && c != ':') return false;
  }
  return true;
}

std::string Text(boost::beast::string_view view) { return std::string(view.data(), view.size()); }

std::string MediaType(boost::beast::string_view value) {
  std::string type = Text(value);
  type = type.substr(0, type.find(';'));
  absl::StripAsciiWhitespace(&type);
  return absl::AsciiStrToLower(type);
}

// The token; empty for other schemes.
std::string Bearer(boost::beast::string_view value) {
  constexpr absl::string_view kScheme = "bearer ";
  const std::string text = Text(value);
  if (!absl::StartsWithIgnoreCase(text, kScheme)) return "";
  return std::string(absl::StripAsciiWhitespace(absl::string_view(text).substr(kScheme.size())));
}

}  // namespace

Connection::Connection(asio::ip::tcp::socket socket, std::shared_ptr<const Shared> shared)
    : stream_(std::move(socket)),
      request_timer_(stream_.get_executor()),
      buffer_(1 << 20),
      shared_(std::move(shared)) {}

asio::awaitable<void> Connection::Run(bool refused) {
  while (keep_alive_ && !broken_) {
    std::optional<Parser> parser;
    if (!co_await ReadRequest(parser)) break;
    if (refused) {
      co_await Refuse(503, "too many connections; try again later");
      break;
    }
    auto& message = parser->get();
    HttpQuery query;
    query.method = Text(message.method_string());
    query.path = Text(message.target());
    query.path = query.path.substr(0, query.path.find('?'));
    query.content_type = MediaType(message[http::field::content_type]);
    query.bearer = Bearer(message[http::field::authorization]);
    query.request_id = request_id_;
    query.body = std::move(message.body());
    parser.reset();
    answering_ = true;
    co_await shared_->handler(std::move(query), *this);
    answering_ = false;
    gone_ = nullptr;
    ++answer_;
    error_code ignored;
    stream_.socket().cancel(ignored);  // the watcher
  }
  error_code ignored;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, ignored);
}

// False: the connection is over; an error that the client should know of has been answered.
asio::awaitable<bool> Connection::ReadRequest(std::optional<Parser>& parser) {
  started_ = false;
  request_id_ = shared_->new_request_id();
  more_headers_.clear();
  error_code error;
  if (buffer_.size() == 0) {  // between requests: only the idle time-out counts
    stream_.expires_after(Nanoseconds(shared_->limits.idle_timeout));
    const size_t count = co_await stream_.async_read_some(
        buffer_.prepare(4096), asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return false;
    buffer_.commit(count);
  }
  parser.emplace();
  parser->header_limit(shared_->limits.max_header_bytes);
  parser->body_limit(shared_->limits.max_body_bytes);
  stream_.expires_never();
  ArmRequestTimer();
  co_await http::async_read_header(stream_, buffer_, *parser,
                                   asio::redirect_error(asio::use_awaitable, error));
  if (!error) {
    auto& message = parser->get();
    http10_ = message.version() < 11;
    keep_alive_ = keep_alive_ && message.keep_alive();
    const std::string id = Text(message["x-request-id"]);
    if (WellFormedRequestId(id)) request_id_ = id;
    if (parser->content_length().value_or(0) > shared_->limits.max_body_bytes) {
      error = http::error::body_limit;
    } else {
      if (message[http::field::expect] == "100-continue") {
        const absl::Status written = co_await Write("HTTP/1.1 100 Continue\r\n\r\n");
        if (!written.ok()) co_return false;
      }
      ArmRequestTimer();
      co_await http::async_read(stream_, buffer_, *parser,
                                asio::redirect_error(asio::use_awaitable, error));
    }
  }
  request_timer_.cancel();
  if (!error) co_return true;
  if (timed_out_) {
    co_await Refuse(408, "the request took too long to arrive");
  } else if (error == http::error::body_limit) {
    co_await Refuse(413,
                    absl::StrCat("the body exceeds ", shared_->limits.max_body_bytes, " bytes"));
  } else if (error == http::error::header_limit || error == http::error::buffer_overflow) {
    co_await Refuse(
        431, absl::StrCat("the headers exceed ", shared_->limits.max_header_bytes, " bytes"));
  } else if (error.category() == http::make_error_code(http::error::bad_method).category() &&
             error != http::error::end_of_stream && error != http::error::partial_message) {
    co_await Refuse(400, absl::StrCat("malformed HTTP: ", error.message()));
  }
  co_return false;
}

void Connection::ArmRequestTimer() {
  request_timer_.expires_after(Nanoseconds(shared_->limits.header_timeout));
  request_timer_.async_wait([self = shared_from_this()](error_code error) {
    if (error) return;
    self->timed_out_ = true;
    self->stream_.socket().cancel(error);
  });
}

asio::awaitable<void> Connection::Refuse(int status, const std::string& message) {
  keep_alive_ = false;
  HttpHeaders headers;
  if (status == 503) headers.emplace_back("Retry-After", "1");
  std::string body = shared_->error_body(status, message);
  const absl::Status replied =
      co_await Reply(status, "application/json", std::move(body), std::move(headers));
  if (replied.ok()) co_await DiscardInput();
}

// Takes what a refused client still sends, a bounded amount for a bounded time.
asio::awaitable<void> Connection::DiscardInput() {
  error_code error;
  stream_.socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
  stream_.expires_after(Nanoseconds(shared_->limits.header_timeout));
  std::string scratch(64 << 10, '\0');
  for (size_t total = 0; !error && total < kMaxDiscardedBytes;) {
    total += co_await stream_.async_read_some(asio::buffer(scratch),
                                              asio::redirect_error(asio::use_awaitable, error));
  }
}

std::string Connection::Head(int status, const HttpHeaders& headers) const {
  const auto reason = http::obsolete_reason(static_cast<http::status>(status));
  std::string head = absl::StrCat("HTTP/1.1 ", status, " ", Text(reason),
                                  "\r\nx-request-id: ", request_id_, "\r\n");
  for (const HttpHeaders* list : {&more_headers_, &headers}) {
    for (const auto& [name, value] : *list) absl::StrAppend(&head, name, ": ", value, "\r\n");
  }
  absl::StrAppend(
      &head, keep_alive_ ? (http10_ ? "Connection: keep-alive\r\n" : "") : "Connection: close\r\n");
  return head;
}

asio::awaitable<absl::Status> Connection::Write(std::string bytes) {
  if (broken_) co_return absl::CancelledError("the client left");
  error_code error;
  stream_.expires_after(Nanoseconds(shared_->limits.write_timeout));
  co_await asio::async_write(stream_, asio::buffer(bytes),
                             asio::redirect_error(asio::use_awaitable, error));
  stream_.expires_never();
  if (!error) co_return absl::OkStatus();
  broken_ = true;
  co_return absl::CancelledError(absl::StrCat("the client left: ", error.message()));
}

asio::awaitable<absl::Status> Connection::Reply(int status, std::string content_type,
                                                std::string body, HttpHeaders headers) {
  started_ = true;
  headers.emplace_back("Content-Type", std::move(content_type));
  headers.emplace_back("Content-Length", absl::StrCat(body.size()));
  std::string bytes = absl::StrCat(Head(status, headers), "\r\n", body);
  co_return co_await Write(std::move(bytes));
}

asio::awaitable<absl::Status> Connection::WriteEvents(std::string events) {
  std::string bytes;
  if (!started_) {
    started_ = true;
    if (http10_) keep_alive_ = false;  // no chunks there: the end of the connection ends the body
    HttpHeaders headers = {{"Content-Type", "text/event-stream; charset=utf-8"},
                           {"Cache-Control", "no-cache"},
                           {"X-Accel-Buffering", "no"}};
    if (!http10_) headers.emplace_back("Transfer-Encoding", "chunked");
    bytes = absl::StrCat(Head(200, headers), "\r\n");
  }
  if (http10_) {
    bytes += events;
  } else if (!events.empty()) {
    absl::StrAppend(&bytes, absl::Hex(events.size()), "\r\n", events, "\r\n");
  }
  co_return co_await Write(std::move(bytes));
}

asio::awaitable<absl::Status> Connection::FinishEvents() {
  if (http10_) co_return absl::OkStatus();
  co_return co_await Write("0\r\n\r\n");
}

void Connection::WatchClient(std::function<void()> gone) {
  gone_ = std::move(gone);
  asio::co_spawn(stream_.get_executor(), Watch(shared_from_this(), answer_), asio::detached);
}

asio::awaitable<void> Connection::Watch(std::shared_ptr<Connection> self, uint64_t answer) {
  for (;;) {
    error_code error;
    co_await self->stream_.socket().async_wait(asio::ip::tcp::socket::wait_read,
                                               asio::redirect_error(asio::use_awaitable, error));
    if (answer != self->answer_ || self->gone_ == nullptr) co_return;
    if (error) break;
    char byte;
    const ssize_t count =
        recv(self->stream_.socket().native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (count > 0) co_return;  // a pipelined request, which waits
    if (count == 0 || (errno != EAGAIN && errno != EINTR)) break;
    // Woken for what was read already: nothing has come since.
  }
  self->broken_ = true;
  auto gone = std::exchange(self->gone_, nullptr);
  gone();
}

void Connection::CloseWhenIdle() {
  keep_alive_ = false;
  if (!answering_) Cut();
}

void Connection::Cut() {
  broken_ = true;
  stream_.close();
}

}  // namespace tandem::gateway
