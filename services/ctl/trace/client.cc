#include "services/ctl/trace/client.h"

#include <absl/strings/str_cat.h>
#include <grpcpp/client_context.h>

#include <chrono>
#include <thread>
#include <utility>

#include "scheduler/base/status.h"
#include "services/ctl/trace/collect.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/mutex.h"
#include "services/runtime/status_map.h"
#include "tandem/v1/trace.grpc.pb.h"

namespace tandem::ctl {
namespace {

constexpr double kPatienceSeconds = 10;

}  // namespace

// One Watch call. `messages` are read by one thread at a time.
struct OpenTrace::Call {
  Call(std::string worker, std::string address, const LinkSecurity& security, double seconds)
      : worker(std::move(worker)),
        address(std::move(address)),
        stub(v1::Trace::NewStub(MakeChannel(this->address, security))),
        collector(this->worker) {
    const auto limit = static_cast<int64_t>((seconds + kPatienceSeconds) * 1e9);
    context.set_deadline(
        gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(limit, GPR_TIMESPAN)));
    stream = stub->Watch(&context);
    v1::TraceRequest request;
    request.set_seconds(seconds);
    stream->Write(request);  // a failure shows in Finish
  }

  // False: there is no further message, or it was none of a trace.
  bool ReadOne() TANDEM_EXCLUDES(mu) {
    v1::TraceMessage message;
    if (!stream->Read(&message)) return false;
    MutexLock lock(mu);
    taken = collector.Take(message);
    changed.NotifyAll();
    return taken.ok();
  }
  void ReadAll() TANDEM_EXCLUDES(mu) {
    while (ReadOne()) {}
    MutexLock lock(mu);
    ended = true;
    changed.NotifyAll();
  }

  // Once nothing more is to be read.
  absl::StatusOr<WorkerTrace> Result() TANDEM_EXCLUDES(mu) {
    MutexLock lock(mu);
    if (!taken.ok()) context.TryCancel();
    const absl::Status finished = FromGrpc(stream->Finish());
    if (!taken.ok()) return Named(taken);
    if (!finished.ok()) return Named(finished);
    absl::StatusOr<WorkerTrace> trace = collector.Finish();
    if (!trace.ok()) return Named(trace.status());
    return trace;
  }

  absl::Status Named(const absl::Status& status) const {
    return absl::Status(status.code(),
                        absl::StrCat("worker ", worker, " at ", address, ": ", status.message()));
  }

  const std::string worker, address;
  const std::unique_ptr<v1::Trace::Stub> stub;
  grpc::ClientContext context;
  std::unique_ptr<grpc::ClientReaderWriter<v1::TraceRequest, v1::TraceMessage>> stream;
  Mutex mu;
  CondVar changed;
  TraceCollector collector TANDEM_GUARDED_BY(mu);
  absl::Status taken TANDEM_GUARDED_BY(mu);
  bool ended TANDEM_GUARDED_BY(mu) = false;
  std::thread reader;
};

absl::StatusOr<WorkerTrace> ReadTrace(const std::string& worker, const std::string& address,
                                      const LinkSecurity& security, double seconds) {
  OpenTrace::Call call(worker, address, security, seconds);
  call.ReadAll();
  return call.Result();
}

OpenTrace::OpenTrace(std::unique_ptr<Call> call) : call_(std::move(call)) {}

absl::StatusOr<std::unique_ptr<OpenTrace>> OpenTrace::Open(const std::string& worker,
                                                           const std::string& address,
                                                           const LinkSecurity& security) {
  auto call = std::make_unique<Call>(worker, address, security, kMaxTraceSeconds);
  if (!call->ReadOne()) {
    const absl::StatusOr<WorkerTrace> ended = call->Result();
    return ended.ok() ? call->Named(absl::DataLossError("its trace ended at once"))
                      : ended.status();
  }
  call->reader = std::thread([call = call.get()] { call->ReadAll(); });
  return std::unique_ptr<OpenTrace>(new OpenTrace(std::move(call)));
}

OpenTrace::~OpenTrace() {
  if (!call_->reader.joinable()) return;
  call_->context.TryCancel();
  call_->reader.join();
}

bool OpenTrace::Await(const std::function<bool(const WorkerTrace&)>& enough, Duration limit) {
  Call& call = *call_;
  MutexLock lock(call.mu);
  while (!call.ended && !enough(call.collector.so_far())) {
    if (!call.changed.WaitFor(lock, std::chrono::nanoseconds(limit.nanoseconds()))) break;
  }
  return enough(call.collector.so_far());
}

absl::StatusOr<WorkerTrace> OpenTrace::Stop() {
  Call& call = *call_;
  call.context.TryCancel();
  call.reader.join();
  call.stream->Finish();  // cancelled: that is no news
  MutexLock lock(call.mu);
  if (!call.taken.ok()) return call.Named(call.taken);
  return call.collector.TakeSoFar();
}

}  // namespace tandem::ctl
