#pragma once

// A small blocking HTTP/1.1 client for loopback addresses: one connection a request.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <functional>
#include <string>

#include "scheduler/base/time.h"

namespace tandem::ctl {

struct HttpReply {
  int status = 0;
  std::string body;
};

// `address` is host:port. kUnavailable: no connection, or it broke; kDeadlineExceeded: nothing came
// for `silence`.
absl::StatusOr<HttpReply> HttpGet(const std::string& address, const std::string& target,
                                  Duration silence);

// Posts JSON, with the API key of the environment's TANDEM_API_KEY if there is one. A 2xx reply's
// body goes to `on_body` piece by piece as it arrives and is left out of the result; any other is
// in the result.
absl::StatusOr<HttpReply> HttpPostStreaming(const std::string& address, const std::string& target,
                                            const std::string& json, Duration silence,
                                            const std::function<void(absl::string_view)>& on_body);

// Cuts a stream of server-sent events into the values of its data lines, however the pieces fall.
class SseReader {
 public:
  explicit SseReader(std::function<void(absl::string_view data)> on_data)
      : on_data_(std::move(on_data)) {}
  void Add(absl::string_view piece);

 private:
  std::function<void(absl::string_view)> on_data_;
  std::string line_;
};

}  // namespace tandem::ctl
