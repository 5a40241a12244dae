#pragma once

// The proto twins of the worker's plain values. Every value that comes in is checked against
// limits.h and its own range: kInvalidArgument names the field and the number.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <vector>

#include "services/runtime/proto_words.h"
#include "tandem/v1/kv_transfer.pb.h"
#include "tandem/v1/registry.pb.h"
#include "tandem/v1/step_tokens.pb.h"
#include "workers/connector/ports.h"

namespace tandem {

// Seconds of a peer (SecondsOfPeer).
Duration ToDuration(double seconds);

// ---- Commands of a router.
absl::StatusOr<SequenceKey> ToSequenceKey(const v1::SequenceKey& key);
absl::StatusOr<step::DecodeRequest> ToDecodeRequest(const v1::DecodeCommand& command);
absl::StatusOr<PrefillOrder> ToPrefillOrder(const v1::PrefillCommand& command);
struct ReleaseOrder {
  ReservationId reservation;  // may be empty
  std::vector<SequenceKey> sequences;
  EndReason reason = EndReason::kCancelled;
};
absl::StatusOr<ReleaseOrder> ToReleaseOrder(const v1::ReleaseCommand& command);
absl::StatusOr<std::vector<FfnEndpoint>> ToHolders(const v1::SetGroupCommand& command);

// ---- What a router is told.
void ToProto(const SequenceKey& key, v1::SequenceKey* out);
void ToProto(const WorkerDescription& worker, v1::Registration* out);  // with `live`
void ToProto(const WorkerReport& report, v1::Heartbeat* out);

// ---- KV frames.
absl::StatusOr<KvRows> ToKvRows(v1::KvFrame& frame);  // takes the rows out of the frame
void ToProto(KvRows rows, v1::KvFrame* out);
absl::StatusOr<KvAckInfo> ToKvAck(const v1::KvAck& ack);
void ToProto(const KvAckInfo& ack, v1::KvAck* out);

// ---- Tokens.
struct GatewayHello {
  GatewayId gateway;
  std::vector<step::ResumePoint> resume;
};
absl::StatusOr<GatewayHello> ToGatewayHello(const v1::TokenHello& hello);
// `costs` is parallel to message.emits.
void ToProto(const step::OutboxMessage& message, const std::vector<SequenceCost>& costs,
             v1::TokenStep* out);

}  // namespace tandem
