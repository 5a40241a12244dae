#include "services/runtime/grpc_server.h"

#include <absl/strings/str_cat.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/health_check_service_interface.h>

#include <mutex>

#include "scheduler/base/check.h"

namespace tandem {
namespace {

constexpr int kMinPingIntervalMs =
    10'000;  // peers may probe a quiet connection that often; gRPC's default is 5 min
constexpr int kServerHandshakeTimeoutMs = 10'000;  // of TLS; gRPC's default is 2 min
constexpr int kFirstReconnectBackoffMs = 100;
constexpr int kMaxReconnectBackoffMs = 2'000;
constexpr int kConnectTimeoutMs = 5'000;  // of one attempt, the handshake included

// gRPC's callback threads live as long as some channel or server uses them, and the last user joins
// them. When that user goes on one of these threads, as a stream that drops its channel in OnDone
// does, gRPC 1.51 aborts: the thread joins itself (CompletionQueue::ReleaseCallbackAlternativeCQ).
// A server without ports that is never destroyed keeps them.
void KeepCallbackThreads() {
  static grpc::Server* const keeper = [] {
    grpc::ServerBuilder builder;
    builder.RegisterCallbackGenericService(new grpc::CallbackGenericService());
    return builder.BuildAndStart().release();
  }();
  TANDEM_CHECK(keeper != nullptr);
}

}  // namespace

absl::StatusOr<GrpcServer> StartGrpcServer(const std::string& listen,
                                           const std::vector<grpc::Service*>& services,
                                           const LinkSecurity& security) {
  static std::once_flag health_once;
  std::call_once(health_once, [] { grpc::EnableDefaultHealthCheckService(true); });
  GrpcServer result;
  result.security = security;
  grpc::ServerBuilder builder;
  if (!listen.empty()) {
    builder.AddListeningPort(listen, security.ForServers(), &result.port);
  } else {
    using Type = grpc::ServerBuilder::experimental_type::ExternalConnectionType;
    result.acceptor =
        builder.experimental().AddExternalConnectionAcceptor(Type::FROM_FD, security.ForServers());
  }
  builder.SetMaxReceiveMessageSize(kMaxFrameBytes);
  builder.SetMaxSendMessageSize(kMaxFrameBytes);
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT,
                             0);  // two daemons on one port would split its connections
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS,
                             kMinPingIntervalMs);
  builder.AddChannelArgument(GRPC_ARG_SERVER_HANDSHAKE_TIMEOUT_MS, kServerHandshakeTimeoutMs);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  for (grpc::Service* service : services) builder.RegisterService(service);
  result.server = builder.BuildAndStart();
  if (result.server == nullptr || (result.port == 0 && !listen.empty())) {
    return absl::UnavailableError(
        absl::StrCat("gRPC cannot listen on ", listen, ": taken, or no address of this machine"));
  }
  return result;
}

std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const LinkSecurity& security) {
  KeepCallbackThreads();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxFrameBytes);
  arguments.SetMaxSendMessageSize(kMaxFrameBytes);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY,
                   0);  // workers are peers: no proxy of the environment stands between
  arguments.SetInt(GRPC_ARG_INITIAL_RECONNECT_BACKOFF_MS, kFirstReconnectBackoffMs);
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, kMaxReconnectBackoffMs);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS,
                   kConnectTimeoutMs);  // despite its name: one attempt's time-out
  security.Configure(arguments);
  return grpc::CreateCustomChannel(address, security.ForChannels(), arguments);
}

}  // namespace tandem
