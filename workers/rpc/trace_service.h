#pragma once

// The trace server of a worker: Trace.Watch in front of its trace log.

#include <grpcpp/support/server_callback.h>

#include <functional>
#include <optional>
#include <set>
#include <string>

#include "scheduler/base/time.h"
#include "services/runtime/stream_count.h"
#include "tandem/v1/trace.grpc.pb.h"
#include "workers/rpc/limits.h"
#include "workers/trace/trace_log.h"

namespace tandem {

// What a trace says of its worker.
struct TracedWorker {
  std::string worker;
  std::string device;
  std::set<Stage> stages;
  double time_scale = 0;  // as WorkerDescription's: 0 is real time
  // The wait that the device is in (DeviceBooks::OpenWait); from any thread.
  std::function<std::optional<Span>()> open_wait;
};

// Sends what the log holds every kTracePeriod; the log is not slowed by its readers. Past
// kMaxTraceReaders, and to a reader that does not read, kResourceExhausted.
class TraceService final : public v1::Trace::CallbackService {
 public:
  // `log`, `time` and what `worker` refers to outlive the server that this is registered with. The
  // log is read and written to messages on the thread of `time`'s alarms.
  TraceService(TracedWorker worker, const TraceLog& log, TimeSource& time)
      : worker_(std::move(worker)), log_(log), time_(time) {}

  grpc::ServerBidiReactor<v1::TraceRequest, v1::TraceMessage>* Watch(
      grpc::CallbackServerContext* context) override;

  size_t readers() const { return streams_.open(); }  // open now

 private:
  class Stream;

  const TracedWorker worker_;
  const TraceLog& log_;
  TimeSource& time_;
  StreamCount streams_{kMaxTraceReaders};
};

}  // namespace tandem
