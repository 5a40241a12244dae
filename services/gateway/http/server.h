#pragma once

// HTTP/1.1 on Boost.Beast and Asio coroutines: connections, limits, answers. What a path means is
// the handler's.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/base/time.h"

namespace tandem::gateway {

struct HttpLimits {
  uint32_t max_connections = 4096;       // more are answered 503 and closed
  uint32_t max_header_bytes = 16 << 10;  // more: 431
  uint64_t max_body_bytes = 8 << 20;     // more: 413
  Duration header_timeout =
      Duration::Seconds(10);  // from the first byte waited for, and for the body after it
  Duration idle_timeout = Duration::Seconds(75);   // between two requests of a connection
  Duration write_timeout = Duration::Seconds(30);  // a client that takes nothing for so long is cut
  uint32_t threads = 2;
};

struct HttpQuery {
  std::string method;        // "GET"
  std::string path;          // without the query string
  std::string content_type;  // lower case, without parameters
  std::string bearer;        // the token of Authorization: Bearer; a secret, for no log
  std::string request_id;    // the client's x-request-id if it is well-formed, else ours
  std::string body;
};

using HttpHeaders = std::vector<std::pair<std::string, std::string>>;

// The way back of one request. Used on its connection's strand only.
class HttpAnswer {
 public:
  virtual ~HttpAnswer() = default;
  virtual boost::asio::any_io_executor executor() = 0;  // the strand
  // One more header of whatever the answer will be; before it starts.
  virtual void AddHeader(std::string name, std::string value) = 0;
  // The whole answer.
  virtual boost::asio::awaitable<absl::Status> Reply(int status, std::string content_type,
                                                     std::string body, HttpHeaders headers) = 0;
  // Part of a stream of server-sent events; the first call sends the headers in the same write.
  // kCancelled: the client has left or takes nothing.
  virtual boost::asio::awaitable<absl::Status> WriteEvents(std::string events) = 0;
  virtual boost::asio::awaitable<absl::Status> FinishEvents() = 0;
  // Calls `gone` once, on the strand, if the client leaves before the answer is finished.
  virtual void WatchClient(std::function<void()> gone) = 0;
  virtual bool started() const = 0;  // headers are out
};

using HttpHandler =
    std::function<boost::asio::awaitable<void>(HttpQuery query, HttpAnswer& answer)>;

// The handler's answers to what never reaches it: (status, message) as a body.
using HttpErrorBody = std::function<std::string(int status, const std::string& message)>;

class HttpServer {
 public:
  // Listens at once; `new_request_id` is called from any of the server's threads.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Start(
      const std::string& listen, const HttpLimits& limits, HttpHandler handler,
      HttpErrorBody error_body, std::function<std::string()> new_request_id);
  ~HttpServer();  // cuts what is open

  int port() const;
  uint32_t connections() const;  // open now
  // Accepts no more, closes idle connections, lets running answers finish for at most `timeout`.
  // True: nobody is served, and who connects is refused. False: some answers go on, until the
  // destructor.
  bool Drain(Duration timeout);

 private:
  struct Impl;
  explicit HttpServer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace tandem::gateway
