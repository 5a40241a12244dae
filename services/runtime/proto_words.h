#pragma once

// The enums that gateway, router and workers all carry over the wire, and seconds of a peer.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include "scheduler/model/figure.h"
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

// Unknown without a value. kInvalidArgument names `field`: a value that is negative or no number,
// or past kMostFigure, a mark that is none, a source longer than kMaxSourceBytes.
absl::StatusOr<model::Figure> ToFigure(absl::string_view field, const v1::Figure& figure);
inline constexpr double kMostFigure = 1e12;
inline constexpr size_t kMaxSourceBytes = 1024;
void ToProto(const model::Figure& figure, v1::Figure* out);

// Seconds as a peer says them; zero for what is no span of time (negative, NaN, over 30 years).
double SecondsOfPeer(double seconds);

}  // namespace tandem
