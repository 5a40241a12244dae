#pragma once

// One connection of the HTTP server: requests in, answers out, on one strand.

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <memory>
#include <optional>
#include <string>

#include "services/gateway/http/server.h"

namespace tandem::gateway {

class Connection final : public HttpAnswer, public std::enable_shared_from_this<Connection> {
 public:
  struct Shared {
    HttpLimits limits;
    HttpHandler handler;
    HttpErrorBody error_body;
    std::function<std::string()> new_request_id;
  };

  Connection(boost::asio::ip::tcp::socket socket, std::shared_ptr<const Shared> shared);

  // Serves requests until either side ends. `refused`: answers 503 to the first and closes.
  boost::asio::awaitable<void> Run(bool refused);
  // Ends after the running answer; now, when none runs. On the strand.
  void CloseWhenIdle();
  void Cut();  // on the strand

  boost::asio::any_io_executor executor() override { return stream_.get_executor(); }
  void AddHeader(std::string name, std::string value) override {
    more_headers_.emplace_back(std::move(name), std::move(value));
  }
  boost::asio::awaitable<absl::Status> Reply(int status, std::string content_type, std::string body,
                                             HttpHeaders headers) override;
  boost::asio::awaitable<absl::Status> WriteEvents(std::string events) override;
  boost::asio::awaitable<absl::Status> FinishEvents() override;
  void WatchClient(std::function<void()> gone) override;
  bool started() const override { return started_; }

 private:
  using Parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  boost::asio::awaitable<bool> ReadRequest(std::optional<Parser>& parser);
  void ArmRequestTimer();  // from now on the request has header_timeout to arrive
  boost::asio::awaitable<void> Refuse(int status, const std::string& message);
  boost::asio::awaitable<void> DiscardInput();
  boost::asio::awaitable<absl::Status> Write(std::string bytes);
  std::string Head(int status, const HttpHeaders& headers) const;
  boost::asio::awaitable<void> Watch(std::shared_ptr<Connection> self, uint64_t answer);

  boost::beast::tcp_stream stream_;
  boost::asio::steady_timer
      request_timer_;  // not the stream's own: that closes the socket, and the client is to be told
  boost::beast::flat_buffer buffer_;
  const std::shared_ptr<const Shared> shared_;
  std::string request_id_;
  HttpHeaders more_headers_;
  std::function<void()> gone_;
  uint64_t answer_ = 0;  // counts requests: a watcher of an older one finds that it is stale
  bool http10_ = false;
  bool keep_alive_ = true;
  bool answering_ = false;
  bool started_ = false;
  bool broken_ = false;
  bool timed_out_ = false;  // the request did not arrive in time
};

}  // namespace tandem::gateway
