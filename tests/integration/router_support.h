#pragma once

// A router on ports of its own, in this process, over real gRPC.

#include <absl/strings/str_cat.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>

#include "services/router/daemon.h"
#include "services/runtime/real_time.h"
#include "services/runtime/status_map.h"
#include "tandem/v1/admin.grpc.pb.h"
#include "tests/fakes/fake_gateway.h"
#include "tests/fakes/fake_worker.h"

namespace tandem::test {

inline router::RouterConfig TestRouterConfig() {
  router::RouterConfig config;
  config.listen = config.admin_listen = config.metrics_listen = "127.0.0.1:0";
  config.router_id = "router-under-test";
  config.model_name = "fake-model";
  config.worker_lease_seconds = 3600;  // fake workers send no heartbeats of their own
  config.log_level = "warning";
  return config;
}

class RouterTest : public testing::Test {
 protected:
  void StartRouter(router::RouterConfig config = TestRouterConfig()) {
    router_.reset();
    absl::StatusOr<std::unique_ptr<router::RouterDaemon>> started =
        router::RouterDaemon::Start(config, time_);
    ASSERT_TRUE(started.ok()) << started.status();
    router_ = *std::move(started);
  }
  // The router dies, and another comes up on its port.
  void RestartRouter() {
    router::RouterConfig config = TestRouterConfig();
    config.listen = address();
    StartRouter(config);
  }
  std::string address() const { return absl::StrCat("127.0.0.1:", router_->port()); }

  std::unique_ptr<v1::Admin::Stub> Admin() const {
    return v1::Admin::NewStub(MakeChannel(absl::StrCat("127.0.0.1:", router_->admin_port())));
  }
  v1::StatusReply Status() const {
    grpc::ClientContext context;
    context.set_wait_for_ready(true);
    context.set_deadline(std::chrono::system_clock::now() + kDeadline);
    v1::StatusReply reply;
    const grpc::Status status = Admin()->Status(&context, {}, &reply);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return reply;
  }
  // Asks until the status satisfies `condition`: snapshots are published at intervals.
  template <typename Fn>
  v1::StatusReply AwaitStatus(const char* what, Fn&& condition) {
    const Instant end = time_.Now() + Duration::Seconds(kDeadline.count());
    for (;;) {
      const v1::StatusReply reply = Status();
      if (condition(reply)) return reply;
      if (time_.Now() > end) {
        ADD_FAILURE() << "waited for a status: " << what << "\n" << reply.DebugString();
        return reply;
      }
    }
  }

  RealTimeSource time_;
  std::unique_ptr<router::RouterDaemon> router_;
};

inline bool IsDecode(const v1::RouterCommand& command) { return command.has_decode(); }
inline bool IsPrefill(const v1::RouterCommand& command) { return command.has_prefill(); }
inline bool IsRelease(const v1::RouterCommand& command) { return command.has_release(); }
inline bool IsDrain(const v1::RouterCommand& command) { return command.has_drain(); }
inline bool IsGroup(const v1::RouterCommand& command) {
  return command.has_set_group() && !command.set_group().holders().empty();
}

}  // namespace tandem::test
