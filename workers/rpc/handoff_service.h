#pragma once

// The hand-off server of an FFN worker: Handoff.Exchange in front of the FFN engine's door.

#include <grpcpp/support/byte_buffer.h>
#include <grpcpp/support/server_callback.h>

#include <atomic>

#include "services/runtime/stream_count.h"
#include "tandem/v1/handoff.grpc.pb.h"
#include "workers/connector/ports.h"
#include "workers/rpc/limits.h"

namespace tandem {

// A stream starts with `open`, which the engine grants or refuses. A malformed call is answered
// with an error reply; a message out of order, or bytes that are no message, end the stream with
// kInvalidArgument.
class HandoffService final
    : public v1::Handoff::WithRawCallbackMethod_Exchange<v1::Handoff::Service> {
 public:
  // `door` outlives the server that this is registered with.
  explicit HandoffService(FfnDoor& door) : door_(door) {}

  grpc::ServerBidiReactor<grpc::ByteBuffer, grpc::ByteBuffer>* Exchange(
      grpc::CallbackServerContext* context) override;

  size_t streams() const { return streams_.open(); }  // open now
  uint64_t malformed_calls() const { return malformed_calls_.load(); }

 private:
  FfnDoor& door_;
  StreamCount streams_{kMaxStreams};
  std::atomic<uint64_t> malformed_calls_{0};
};

}  // namespace tandem
