#pragma once

// What every gRPC server and channel of Tandem has in common: sizes, health, addresses.

#include <absl/status/statusor.h>
#include <grpcpp/channel.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>
#include <vector>

#include "services/runtime/link_security.h"

namespace tandem {

inline constexpr int kMaxFrameBytes =
    64 << 20;  // gRPC's default of 4 MB is less than 128 rows x 16,384 x 4 B

// A server on `listen` ("127.0.0.1:0" picks a port), with grpc.health.v1, serving `services` (not
// owned) over links of that security. With `listen` empty it has no port: connections are handed to
// its acceptor (daemon.h's ServeAdmin). kUnavailable, with the address: it is taken.
struct GrpcServer {
  LinkSecurity security;  // goes on reloading as long as the server lives
  std::unique_ptr<grpc::Server> server;
  int port = 0;
  std::unique_ptr<grpc::experimental::ExternalConnectionAcceptor> acceptor;
};
absl::StatusOr<GrpcServer> StartGrpcServer(const std::string& listen,
                                           const std::vector<grpc::Service*>& services,
                                           const LinkSecurity& security);

// A channel of its own connection (no sharing between streams of different purpose), large frames,
// quick reconnects. A server with TLS refuses plain text, so what is forgotten here shows at once;
// servers must be told.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address,
                                           const LinkSecurity& security = {});

}  // namespace tandem
