#include "services/ctl/admin_client.h"

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>
#include <grpcpp/client_context.h>

#include <chrono>

#include "services/runtime/grpc_server.h"
#include "services/runtime/status_map.h"
#include "tandem/v1/admin.grpc.pb.h"

namespace tandem::ctl {

namespace {

// What a connection that was taken and closed without a word may mean.
const char* Hint(const absl::Status& status, const LinkSecurity& security) {
  const bool refused = absl::StrContains(status.message(), "Connection refused");
  if (!absl::IsUnavailable(status) || refused) return "";
  return security.tls() ? " (it takes only certificates of its own authority and name; or its "
                          "links are plain text)"
                        : " (if its links have TLS, give --tls-cert, --tls-key and --tls-ca)";
}

// One call of the admin service; errors name the address.
template <typename Request, typename Reply>
absl::StatusOr<Reply> Ask(const std::string& address, const LinkSecurity& security,
                          int timeout_seconds, const Request& request,
                          grpc::Status (v1::Admin::Stub::*call)(grpc::ClientContext*,
                                                                const Request&, Reply*)) {
  const auto stub = v1::Admin::NewStub(MakeChannel(address, security));
  grpc::ClientContext context;
  gpr_timespec limit = gpr_time_from_seconds(timeout_seconds, GPR_TIMESPAN);
  context.set_deadline(gpr_time_add(gpr_now(GPR_CLOCK_MONOTONIC), limit));
  Reply reply;
  const absl::Status status = FromGrpc((stub.get()->*call)(&context, request, &reply));
  if (!status.ok()) {
    return absl::Status(status.code(), absl::StrCat("router at ", address, ": ", status.message(),
                                                    Hint(status, security)));
  }
  return reply;
}

}  // namespace

absl::StatusOr<v1::StatusReply> AskRouterStatus(const std::string& address,
                                                const LinkSecurity& security, int timeout_seconds) {
  return Ask(address, security, timeout_seconds, v1::StatusRequest(), &v1::Admin::Stub::Status);
}

absl::StatusOr<v1::TcoReply> AskRouterTco(const std::string& address, const LinkSecurity& security,
                                          double window_seconds, int timeout_seconds) {
  v1::TcoRequest request;
  request.set_window_seconds(window_seconds);
  return Ask(address, security, timeout_seconds, request, &v1::Admin::Stub::Tco);
}

}  // namespace tandem::ctl
