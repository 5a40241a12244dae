#include "services/ctl/http_client.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <absl/strings/str_split.h>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http.hpp>

#include <chrono>
#include <cstdlib>
#include <exception>
#include <utility>

namespace tandem::ctl {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using boost::system::error_code;

// One exchange. Beast's time limits work on asynchronous calls only, so each step starts one and
// runs the loop to its end.
class Exchange {
 public:
  Exchange(std::string address, Duration silence)
      : address_(std::move(address)), silence_(silence.nanoseconds()), stream_(io_) {}

  absl::StatusOr<HttpReply> Run(http::request<http::string_body> request,
                                const std::function<void(absl::string_view)>& on_body) {
    const std::pair<std::string, std::string> host_port =
        absl::StrSplit(address_, absl::MaxSplits(':', 1));
    error_code error;
    asio::ip::tcp::resolver resolver(io_);
    const auto endpoints = resolver.resolve(host_port.first, host_port.second, error);
    if (error) return Failed("resolve", error);
    error = Await([&](auto done) {
      stream_.async_connect(endpoints,
                            [done](error_code ec, const asio::ip::tcp::endpoint&) { done(ec); });
    });
    if (error) return Failed("connect", error);
    request.set(http::field::host, address_);
    error = Await([&](auto done) {
      http::async_write(stream_, request, [done](error_code ec, size_t) { done(ec); });
    });
    if (error) return Failed("write", error);
    return ReadReply(on_body);
  }

 private:
  absl::StatusOr<HttpReply> ReadReply(const std::function<void(absl::string_view)>& on_body) {
    http::response_parser<http::buffer_body> parser;
    parser.body_limit(boost::none);
    error_code error = Await([&](auto done) {
      http::async_read_header(stream_, buffer_, parser,
                              [done](error_code ec, size_t) { done(ec); });
    });
    if (error) return Failed("read", error);
    HttpReply reply{.status = static_cast<int>(parser.get().result_int()), .body = {}};
    const bool success = reply.status / 100 == 2;
    char piece[8192];
    while (!parser.is_done()) {
      parser.get().body().data = piece;
      parser.get().body().size = sizeof piece;
      error = Await([&](auto done) {
        http::async_read_some(stream_, buffer_, parser,
                              [done](error_code ec, size_t) { done(ec); });
      });
      if (error == http::error::need_buffer) error = {};
      if (error) return Failed("read", error);
      const absl::string_view got(piece, sizeof piece - parser.get().body().size);
      if (success && on_body) {
        on_body(got);
      } else {
        reply.body.append(got.data(), got.size());
      }
    }
    return reply;
  }

  template <typename Begin>
  error_code Await(Begin begin) {
    error_code result;
    stream_.expires_after(silence_);
    begin([&result](error_code ec) { result = ec; });
    io_.restart();
    io_.run();
    return result;
  }

  absl::Status Failed(absl::string_view what, const error_code& error) const {
    const std::string message = absl::StrCat(address_, ": ", what, ": ", error.message());
    if (error == beast::error::timeout) return absl::DeadlineExceededError(message);
    return absl::UnavailableError(message);
  }

  const std::string address_;
  const std::chrono::nanoseconds silence_;
  asio::io_context io_;
  beast::tcp_stream stream_;
  beast::flat_buffer buffer_;
};

absl::StatusOr<HttpReply> Perform(const std::string& address, Duration silence,
                                  http::request<http::string_body> request,
                                  const std::function<void(absl::string_view)>& on_body) {
  try {
    return Exchange(address, silence).Run(std::move(request), on_body);
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat(address, ": ", error.what()));
  }
}

}  // namespace

absl::StatusOr<HttpReply> HttpGet(const std::string& address, const std::string& target,
                                  Duration silence) {
  return Perform(address, silence, {http::verb::get, target, 11}, nullptr);
}

absl::StatusOr<HttpReply> HttpPostStreaming(const std::string& address, const std::string& target,
                                            const std::string& json, Duration silence,
                                            const std::function<void(absl::string_view)>& on_body) {
  http::request<http::string_body> request{http::verb::post, target, 11};
  request.set(http::field::content_type, "application/json");
  if (const char* const key = std::getenv("TANDEM_API_KEY"); key != nullptr)
    request.set(http::field::authorization, absl::StrCat("Bearer ", key));
  request.body() = json;
  request.prepare_payload();
  return Perform(address, silence, std::move(request), on_body);
}

void SseReader::Add(absl::string_view piece) {
  for (const char c : piece) {
    if (c != '\n') {
      line_.push_back(c);
      continue;
    }
    absl::string_view line = line_;
    if (absl::EndsWith(line, "\r")) line.remove_suffix(1);
    if (absl::StartsWith(line, "data:")) {
      line.remove_prefix(5);
      if (absl::StartsWith(line, " ")) line.remove_prefix(1);
      on_data_(line);
    }
    line_.clear();
  }
}

}  // namespace tandem::ctl
