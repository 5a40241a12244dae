// Words that both kinds of peer use.

#include <optional>

#include "services/router/dispatch/convert.h"

namespace tandem::router {

v1::Stage ToProto(Stage stage) {
  switch (stage) {
    case Stage::kPrefill:
      return v1::STAGE_PREFILL;
    case Stage::kAttention:
      return v1::STAGE_ATTENTION;
    case Stage::kFfn:
      return v1::STAGE_FFN;
  }
  return v1::STAGE_UNSPECIFIED;
}

v1::EndReason ToProto(EndReason reason) {
  switch (reason) {
    case EndReason::kEos:
      return v1::END_REASON_EOS;
    case EndReason::kStopToken:
      return v1::END_REASON_STOP_TOKEN;
    case EndReason::kLength:
      return v1::END_REASON_LENGTH;
    case EndReason::kStopped:
      return v1::END_REASON_STOPPED;
    case EndReason::kCancelled:
      return v1::END_REASON_CANCELLED;
    case EndReason::kPreempted:
      return v1::END_REASON_PREEMPTED;
    case EndReason::kSuperseded:
      return v1::END_REASON_SUPERSEDED;
    case EndReason::kFailed:
      return v1::END_REASON_FAILED;
  }
  return v1::END_REASON_UNSPECIFIED;
}

std::optional<EndReason> ToEndReason(v1::EndReason reason) {
  switch (reason) {
    case v1::END_REASON_EOS:
      return EndReason::kEos;
    case v1::END_REASON_STOP_TOKEN:
      return EndReason::kStopToken;
    case v1::END_REASON_LENGTH:
      return EndReason::kLength;
    case v1::END_REASON_STOPPED:
      return EndReason::kStopped;
    case v1::END_REASON_CANCELLED:
      return EndReason::kCancelled;
    case v1::END_REASON_PREEMPTED:
      return EndReason::kPreempted;
    case v1::END_REASON_SUPERSEDED:
      return EndReason::kSuperseded;
    case v1::END_REASON_FAILED:
      return EndReason::kFailed;
    default:
      return std::nullopt;
  }
}

void ToProto(const SequenceKey& key, v1::SequenceKey* out) {
  out->set_request_id(key.request.value());
  out->set_choice(key.choice);
  out->set_attempt(key.attempt);
}

SequenceKey ToKey(const v1::SequenceKey& proto) {
  return {RequestId(proto.request_id()), proto.choice(), proto.attempt()};
}

}  // namespace tandem::router
