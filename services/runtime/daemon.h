#pragma once

// What every daemon does around its work: wait for a signal, answer /livez, /readyz and /metrics.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>
#include <grpcpp/impl/service_type.h>
#include <prometheus/registry.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace tandem {

class LinkSecurity;

// A small HTTP server that stops when destroyed.
struct ListeningServer {
  virtual ~ListeningServer() = default;
  int port = 0;  // the one it listens on: `listen` may have asked for port 0
};

// Blocks SIGTERM and SIGINT in this thread and those it starts later, and ignores SIGPIPE: call
// first in main.
void BlockStopSignals();
// Waits for one of them; returns its number. A second one during the drain ends the process at
// once.
int WaitForStopSignal();

// Serves GET /metrics at `listen` ("127.0.0.1:0" picks a port). kUnavailable, with the address:
// cannot listen there.
absl::StatusOr<std::shared_ptr<ListeningServer>> ServeMetrics(
    const std::string& listen, const std::shared_ptr<prometheus::Registry>& registry);

// Serves GET /livez (200 "ok") and /readyz (200 "ok", or 503 with the reason) at `listen`.
// `not_ready_reason` returns an empty string when ready; it is called from the server's thread.
// Errors as for ServeMetrics.
absl::StatusOr<std::shared_ptr<ListeningServer>> ServeHealth(
    const std::string& listen, std::function<std::string()> not_ready_reason);

// A page of ServeAdmin's beside health: GET `path`, answered with JSON.
struct JsonPage {
  std::string path;
  // The body for what follows '?', which may be empty. An error becomes its HTTP status
  // (http_status.h) and {"error": {"code", "message"}}. Called from the server's thread.
  std::function<absl::StatusOr<std::string>(absl::string_view query)> answer;
};

// ServeHealth, `pages` and gRPC on one port: a connection that begins as HTTP/2 does, or with TLS
// as a TLS handshake does, is a gRPC one, to `services` (not owned; they outlive the result) and
// grpc.health.v1. Health and pages stay plain HTTP, for the kubelet and scrapers.
absl::StatusOr<std::shared_ptr<ListeningServer>> ServeAdmin(
    const std::string& listen, std::function<std::string()> not_ready_reason,
    const std::vector<grpc::Service*>& services, const LinkSecurity& security,
    std::vector<JsonPage> pages = {});

}  // namespace tandem
