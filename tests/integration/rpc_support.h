#pragma once

// What tests over gRPC share: a server on a port of its own.

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "services/runtime/grpc_server.h"
#include "tests/integration/watched.h"

namespace tandem::test {

// A gRPC server that serves until it goes, or is killed.
class TestServer {
 public:
  explicit TestServer(std::vector<grpc::Service*> services,
                      const std::string& listen = "127.0.0.1:0",
                      const LinkSecurity& security = {}) {
    absl::StatusOr<GrpcServer> started = StartGrpcServer(listen, services, security);
    EXPECT_TRUE(started.ok()) << started.status();
    server_ = *std::move(started);
  }
  ~TestServer() { Kill(); }
  std::string address() const { return "127.0.0.1:" + std::to_string(server_.port); }
  // Cuts every stream at once, as a dead process would.
  void Kill() {
    if (server_.server != nullptr) server_.server->Shutdown(std::chrono::system_clock::now());
    server_.server.reset();
  }

 private:
  GrpcServer server_;
};

}  // namespace tandem::test
