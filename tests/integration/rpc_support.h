#pragma once

// What the tests of workers/rpc share: waiting for a condition with a generous deadline, and a
// server on a port of its own.

#include <gtest/gtest.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "services/runtime/grpc_server.h"
#include "services/runtime/mutex.h"

namespace tandem::test {

inline constexpr std::chrono::seconds kDeadline{30};

// A value that many threads change and one waits on.
template <typename T>
class Watched {
 public:
  template <typename Fn>
  void Change(Fn&& fn) {
    MutexLock lock(mu_);
    fn(value_);
    changed_.NotifyAll();
  }
  // Waits until `condition(value)`; false, and a failed test, when that takes over kDeadline.
  template <typename Fn>
  bool Await(const char* what, Fn&& condition) {
    const auto end = std::chrono::steady_clock::now() + kDeadline;
    MutexLock lock(mu_);
    while (!condition(value_)) {
      const auto left = end - std::chrono::steady_clock::now();
      if (left <= left.zero()) {
        ADD_FAILURE() << "waited " << kDeadline.count() << " s for: " << what;
        return false;
      }
      changed_.WaitFor(lock, std::chrono::duration_cast<std::chrono::nanoseconds>(left));
    }
    return true;
  }
  T Get() {
    MutexLock lock(mu_);
    return value_;
  }

 private:
  Mutex mu_;
  CondVar changed_;
  T value_{};
};

// A gRPC server that serves until it goes, or is killed.
class TestServer {
 public:
  explicit TestServer(std::vector<grpc::Service*> services,
                      const std::string& listen = "127.0.0.1:0") {
    absl::StatusOr<GrpcServer> started = StartGrpcServer(listen, services);
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
