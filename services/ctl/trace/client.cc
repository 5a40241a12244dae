#include "services/ctl/trace/client.h"

#include <absl/strings/str_cat.h>
#include <grpcpp/client_context.h>

#include <memory>
#include <utility>

#include "scheduler/base/status.h"
#include "services/ctl/trace/collect.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/status_map.h"
#include "tandem/v1/trace.grpc.pb.h"

namespace tandem::ctl {
namespace {

constexpr double kPatienceSeconds = 10;

absl::StatusOr<WorkerTrace> Read(const std::string& worker, const std::string& address,
                                 double seconds) {
  const auto stub = v1::Trace::NewStub(MakeChannel(address));
  grpc::ClientContext context;
  const auto limit = static_cast<int64_t>((seconds + kPatienceSeconds) * 1e9);
  context.set_deadline(
      gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), gpr_time_from_nanos(limit, GPR_TIMESPAN)));
  const auto stream = stub->Watch(&context);
  v1::TraceRequest request;
  request.set_seconds(seconds);
  stream->Write(request);  // a failure shows in Finish
  TraceCollector collector(worker);
  v1::TraceMessage message;
  absl::Status taken;
  while (taken.ok() && stream->Read(&message)) taken = collector.Take(message);
  if (!taken.ok()) context.TryCancel();
  const absl::Status ended = FromGrpc(stream->Finish());
  RETURN_IF_ERROR(taken);
  RETURN_IF_ERROR(ended);
  return collector.Finish();
}

}  // namespace

absl::StatusOr<WorkerTrace> ReadTrace(const std::string& worker, const std::string& address,
                                      double seconds) {
  absl::StatusOr<WorkerTrace> trace = Read(worker, address, seconds);
  if (trace.ok()) return trace;
  return absl::Status(trace.status().code(), absl::StrCat("worker ", worker, " at ", address, ": ",
                                                          trace.status().message()));
}

}  // namespace tandem::ctl
