#include "services/ctl/admin_client.h"

#include <absl/strings/str_cat.h>
#include <grpcpp/client_context.h>

#include <chrono>

#include "services/runtime/grpc_server.h"
#include "services/runtime/status_map.h"
#include "tandem/v1/admin.grpc.pb.h"

namespace tandem::ctl {

namespace {

// One call of the admin service; errors name the address.
template <typename Request, typename Reply>
absl::StatusOr<Reply> Ask(const std::string& address, int timeout_seconds, const Request& request,
                          grpc::Status (v1::Admin::Stub::*call)(grpc::ClientContext*,
                                                                const Request&, Reply*)) {
  const auto stub = v1::Admin::NewStub(MakeChannel(address));
  grpc::ClientContext context;
  gpr_timespec limit = gpr_time_from_seconds(timeout_seconds, GPR_TIMESPAN);
  context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), limit));
  Reply reply;
  const absl::Status status = FromGrpc((stub.get()->*call)(&context, request, &reply));
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("router at ", address, ": ", status.message()));
  }
  return reply;
}

}  // namespace

absl::StatusOr<v1::StatusReply> AskRouterStatus(const std::string& address, int timeout_seconds) {
  return Ask(address, timeout_seconds, v1::StatusRequest(), &v1::Admin::Stub::Status);
}

absl::StatusOr<v1::TcoReply> AskRouterTco(const std::string& address, double window_seconds,
                                          int timeout_seconds) {
  v1::TcoRequest request;
  request.set_window_seconds(window_seconds);
  return Ask(address, timeout_seconds, request, &v1::Admin::Stub::Tco);
}

}  // namespace tandem::ctl
