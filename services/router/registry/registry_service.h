#pragma once

// Workers' streams: registrations, heartbeats, answers and events up; commands down.

#include <memory>

#include "services/router/dispatch/convert.h"
#include "services/router/registry/worker_book.h"
#include "services/router/router_core.h"
#include "services/router/tco/tco_book.h"
#include "services/runtime/stream_count.h"
#include "tandem/v1/registry.grpc.pb.h"

namespace tandem::router {

struct RegistryLimits {
  size_t max_streams =
      2048;  // twice max_workers: a worker may dial again before its old stream ended
  size_t max_queued_commands =
      1024;  // of one worker; past it the stream ends and the worker is lost
  Duration hello_timeout = Duration::Seconds(10);  // from the stream's start to its first message
};

// Destroy after the server is shut down: the destructor waits for the last stream.
class RegistryService final : public v1::Registry::CallbackService {
 public:
  // All outlive the service.
  RegistryService(const RouterIdentity& self, const RegistryLimits& limits, RouterCore& core,
                  WorkerBook& book, TcoBook& tco, TimeSource& time);

  grpc::ServerBidiReactor<v1::WorkerMessage, v1::RouterCommand>* Register(
      grpc::CallbackServerContext* context) override;

 private:
  const RouterIdentity self_;
  const RegistryLimits limits_;
  RouterCore& core_;
  WorkerBook& book_;
  TcoBook& tco_;
  TimeSource& time_;
  StreamCount streams_;
};

}  // namespace tandem::router
