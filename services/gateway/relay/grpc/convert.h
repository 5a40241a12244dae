#pragma once

// The proto twins of relay/types.h.

#include "services/gateway/relay/types.h"
#include "tandem/v1/router.pb.h"
#include "tandem/v1/step_tokens.pb.h"

namespace tandem::gateway {

void ToProto(const SequenceKey& key, v1::SequenceKey* out);
SequenceKey FromProto(const v1::SequenceKey& key);
void ToProto(const tandem::GenerateSpec& spec, v1::GenerateRequest* out);
ClusterInfo FromProto(const v1::ClusterState& state);
ClusterLoad FromProto(const v1::ClusterLoad& load);
PlacedInfo FromProto(const v1::Placed& placed);
RefusedInfo FromProto(const v1::RouterSequenceEnd& end);
TokenBatch FromProto(v1::TokenStep& step);

}  // namespace tandem::gateway
