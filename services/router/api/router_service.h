#pragma once

// Gateways' streams: Generate and Abort up; placements, ends and the cluster's state down.

#include "services/router/api/gateway_book.h"
#include "services/router/dispatch/convert.h"
#include "services/router/router_core.h"
#include "services/runtime/stream_count.h"
#include "tandem/v1/router.grpc.pb.h"

namespace tandem::router {

struct RouterServiceLimits {
  GenerateLimits generate;
  size_t max_streams =
      2048;  // twice max_gateways: a gateway may dial again before its old stream ended
  size_t max_queued_answers = 65536;               // of one gateway; past it the stream ends
  Duration hello_timeout = Duration::Seconds(10);  // from the stream's start to its first message
};

// Destroy after the server is shut down: the destructor waits for the last stream.
class RouterService final : public v1::Router::CallbackService {
 public:
  // All outlive the service.
  RouterService(const RouterIdentity& self, const RouterServiceLimits& limits, RouterCore& core,
                GatewayBook& book, TimeSource& time);

  grpc::ServerBidiReactor<v1::GatewayMessage, v1::RouterMessage>* Generate(
      grpc::CallbackServerContext* context) override;

 private:
  const RouterIdentity self_;
  const RouterServiceLimits limits_;
  RouterCore& core_;
  GatewayBook& book_;
  TimeSource& time_;
  StreamCount streams_;
};

}  // namespace tandem::router
