#pragma once

// The only place where statuses change their dress: absl, gRPC, the wire's ErrorStatus, HTTP.

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

#include "tandem/v1/common.pb.h"

namespace tandem {

grpc::Status ToGrpc(const absl::Status& status);  // same code, same message
absl::Status FromGrpc(const grpc::Status& status);
void ToProto(const absl::Status& status, v1::ErrorStatus* out);  // status is not OK
absl::Status FromProto(const v1::ErrorStatus& error);            // code 0 or unknown: kInternal

}  // namespace tandem
