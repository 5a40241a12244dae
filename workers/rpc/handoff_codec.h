#pragma once

// The messages of handoff.proto as gRPC byte buffers. The fields are protobuf's; only the rows,
// nearly all of a frame's bytes, take a way of their own: sending lends the caller's memory to
// gRPC, receiving copies once, into the vector that the engine gets. Through protobuf's string each
// would be copied twice more in each direction.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <grpcpp/support/byte_buffer.h>

#include <optional>
#include <vector>

#include "tandem/v1/handoff.pb.h"
#include "workers/connector/ports.h"

namespace tandem {

grpc::ByteBuffer EncodeOpen(const HandoffHello& hello);
grpc::ByteBuffer EncodeCall(A2f call);
grpc::ByteBuffer EncodeLive(bool live, Instant arrives_at);
grpc::ByteBuffer EncodeGrant(const HandoffGrantInfo& grant);
grpc::ByteBuffer EncodeRefusal(const absl::Status& status, uint64_t shard_epoch);
// `shard_epoch` is the holder's own, sent with an error.
grpc::ByteBuffer EncodeReply(F2a reply, uint64_t shard_epoch);

// A message with rows: its fields without `data`, which is in `rows`. The last piece is cut when
// `data_bytes` is no multiple of 4.
template <typename Fields>
struct FrameWithRows {
  Fields fields;
  std::vector<float> rows;
  uint64_t data_bytes = 0;
};

// One message of an attention worker: exactly one of the three is set.
struct A2fFrame {
  using Call = FrameWithRows<v1::A2fCall>;
  std::optional<v1::HandoffOpen> open;
  std::optional<Call> call;
  std::optional<v1::HandoffLive> live;
};
// kInvalidArgument: these bytes are no A2fMessage, or an empty one.
absl::StatusOr<A2fFrame> DecodeA2f(grpc::ByteBuffer& buffer);

// One message of an FFN holder: exactly one of the two is set.
struct F2aFrame {
  using Reply = FrameWithRows<v1::F2aReply>;
  std::optional<v1::HandoffGrant> grant;
  std::optional<Reply> reply;
};
absl::StatusOr<F2aFrame> DecodeF2a(grpc::ByteBuffer& buffer);

// What a peer's words mean, checked. kInvalidArgument names the field and the number.
absl::StatusOr<HandoffHello> ToHello(const v1::HandoffOpen& open);
absl::StatusOr<HandoffGrantInfo> ToGrant(
    const v1::HandoffGrant& grant);  // a refusal is its own status
step::CallId CallIdOf(const v1::A2fCall& call);
step::CallId CallIdOf(const v1::F2aReply& reply);
// `hello` and `max_rows` are what the stream agreed on. kInvalidArgument; kUnimplemented: routing.
absl::Status CheckCall(const A2fFrame::Call& call, const HandoffHello& hello, uint32_t max_rows);

}  // namespace tandem
