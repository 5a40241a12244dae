#include "services/ctl/admin_client.h"

#include <absl/strings/str_cat.h>
#include <grpcpp/client_context.h>

#include <chrono>

#include "services/runtime/grpc_server.h"
#include "services/runtime/status_map.h"
#include "tandem/v1/admin.grpc.pb.h"

namespace tandem::ctl {

absl::StatusOr<v1::StatusReply> AskRouterStatus(const std::string& address, int timeout_seconds) {
  const auto stub = v1::Admin::NewStub(MakeChannel(address));
  grpc::ClientContext context;
  gpr_timespec limit = gpr_time_from_seconds(timeout_seconds, GPR_TIMESPAN);
  context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), limit));
  v1::StatusReply reply;
  const absl::Status status = FromGrpc(stub->Status(&context, v1::StatusRequest(), &reply));
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("router at ", address, ": ", status.message()));
  }
  return reply;
}

}  // namespace tandem::ctl
