#pragma once

// The token server of an attention worker: Tokens.StepTokens in front of the attention engine's
// door.

#include <grpcpp/support/server_callback.h>

#include "services/runtime/stream_count.h"
#include "tandem/v1/step_tokens.grpc.pb.h"
#include "workers/connector/ports.h"
#include "workers/rpc/limits.h"

namespace tandem {

// A stream starts with `hello`; anything else first, or a malformed message later, ends it with
// kInvalidArgument. Messages are never dropped: the engine's outbox bounds what is not
// acknowledged, and with it what waits here to be written.
class TokenService final : public v1::Tokens::CallbackService {
 public:
  // `door` outlives the server that this is registered with.
  explicit TokenService(TokenDoor& door) : door_(door) {}

  grpc::ServerBidiReactor<v1::TokenControl, v1::TokenStep>* StepTokens(
      grpc::CallbackServerContext* context) override;

  size_t streams() const { return streams_.open(); }  // open now

 private:
  TokenDoor& door_;
  StreamCount streams_{kMaxStreams};
};

}  // namespace tandem
