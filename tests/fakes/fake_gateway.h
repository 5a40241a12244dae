#pragma once

// A gateway as a router sees it: a Generate stream of its own, and no clients behind it.

#include <grpcpp/grpcpp.h>

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "services/runtime/mutex.h"
#include "tandem/v1/router.grpc.pb.h"
#include "tests/integration/rpc_support.h"

namespace tandem::test {

// A request that a router takes: `prompt_tokens` ids, max_tokens 8, choices 0 to n-1.
v1::GenerateRequest RequestNamed(const std::string& id, int prompt_tokens = 20, int n = 1);
v1::GatewayHello HelloFrom(const std::string& gateway_id);

// Safe from any thread.
class FakeGateway {
 public:
  // Dials and says hello.
  FakeGateway(const std::string& router, const v1::GatewayHello& hello);
  // Dials and says that instead.
  FakeGateway(const std::string& router, const v1::GatewayMessage& first);
  ~FakeGateway();  // cuts the stream

  void Send(const v1::GatewayMessage& message);
  void Generate(const v1::GenerateRequest& request);
  void Abort(const std::string& request, const std::vector<uint32_t>& choices = {});
  void Cut();  // as a dead process would

  v1::RouterWelcome AwaitWelcome();
  v1::ClusterState AwaitState(bool ready);  // the newest state is (not) ready
  // The newest Placed of that sequence; waits for the `count`-th.
  v1::Placed AwaitPlaced(const std::string& request, uint32_t choice = 0, uint32_t attempt = 0,
                         size_t count = 1);
  v1::RouterSequenceEnd AwaitEnd(const std::string& request, uint32_t choice = 0,
                                 uint32_t attempt = 0);
  absl::Status AwaitStreamEnd();

 private:
  struct Seen {
    std::vector<v1::RouterMessage> messages;
    std::optional<absl::Status> ended;
  };
  // Waits for the `count`-th message that satisfies `matches`.
  v1::RouterMessage Await(const std::string& what,
                          const std::function<bool(const v1::RouterMessage&)>& matches,
                          size_t count = 1);
  void Start(const std::string& router, const v1::GatewayMessage& first);

  std::unique_ptr<v1::Router::Stub> stub_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReaderWriter<v1::GatewayMessage, v1::RouterMessage>> stream_;
  Mutex write_mu_;
  Watched<Seen> seen_;
  std::thread reader_;
};

}  // namespace tandem::test
