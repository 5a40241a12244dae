#pragma once

// The KV server of an attention worker: KvTransfer.Push in front of the attention engine's door.

#include <grpcpp/support/server_callback.h>

#include <atomic>

#include "services/runtime/stream_count.h"
#include "tandem/v1/kv_transfer.grpc.pb.h"
#include "workers/connector/ports.h"
#include "workers/rpc/limits.h"

namespace tandem {

// Every frame is acknowledged once, a malformed one with kInvalidArgument, one of an unknown
// reservation with kNotFound.
class KvService final : public v1::KvTransfer::CallbackService {
 public:
  // `door` outlives the server that this is registered with.
  explicit KvService(KvDoor& door) : door_(door) {}

  grpc::ServerBidiReactor<v1::KvFrame, v1::KvAck>* Push(
      grpc::CallbackServerContext* context) override;

  size_t streams() const { return streams_.open(); }  // open now
  uint64_t malformed_frames() const { return malformed_.load(); }
  uint64_t dropped_frames() const {
    return dropped_.load();
  }  // of reservations that the engine does not know

 private:
  class Stream;  // kv_service.cc
  KvDoor& door_;
  StreamCount streams_{kMaxStreams};
  std::atomic<uint64_t> malformed_{0}, dropped_{0};
};

}  // namespace tandem
