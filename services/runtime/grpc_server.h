#pragma once

// What every gRPC server and channel of Tandem has in common: sizes, health, addresses.

#include <absl/status/statusor.h>
#include <grpcpp/channel.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <memory>
#include <string>
#include <vector>

namespace tandem {

inline constexpr int kMaxFrameBytes =
    64 << 20;  // gRPC's default of 4 MB is less than 128 rows x 16,384 x 4 B

// A server on `listen` ("127.0.0.1:0" picks a port), with grpc.health.v1, serving `services` (not
// owned). With `listen` empty it has no port: connections are handed to it (daemon.h's ServeAdmin).
// kUnavailable, with the address: it is taken.
struct GrpcServer {
  std::unique_ptr<grpc::Server> server;
  int port = 0;
};
absl::StatusOr<GrpcServer> StartGrpcServer(const std::string& listen,
                                           const std::vector<grpc::Service*>& services);

// A channel of its own connection (no sharing between streams of different purpose), large frames,
// quick reconnects.
std::shared_ptr<grpc::Channel> MakeChannel(const std::string& address);

}  // namespace tandem
