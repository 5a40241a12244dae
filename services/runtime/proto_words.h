#pragma once

// The enums that gateway, router and workers all carry over the wire, and seconds of a peer.

#include <absl/status/statusor.h>

#include "scheduler/view/request.h"
#include "scheduler/view/worker.h"
#include "tandem/v1/common.pb.h"

namespace tandem {

v1::Stage ToProto(Stage stage);
absl::StatusOr<Stage> ToStage(int stage);  // of v1::Stage; kInvalidArgument: unspecified or unknown
v1::EndReason ToProto(EndReason reason);
absl::StatusOr<EndReason> ToEndReason(v1::EndReason reason);  // likewise

void ToProto(const FfnShard& shard, v1::FfnShard* out);
// As the peer says it, unchecked: CheckShard, once the number of layers is known.
FfnShard ToShard(const v1::FfnShard& shard);

// Seconds as a peer says them; zero for what is no span of time (negative, NaN, over 30 years).
double SecondsOfPeer(double seconds);

}  // namespace tandem
