#include "services/runtime/status_map.h"

#include <absl/strings/str_cat.h>
#include <absl/strings/string_view.h>

#include "scheduler/base/check.h"
#include "services/runtime/utf8.h"

namespace tandem {
namespace {

// gRPC sends a status in its trailers, which peers limit to 8 KiB, percent-encoded (3 bytes for
// one, at worst).
constexpr size_t kMaxGrpcMessageBytes = 2048;

constexpr bool IsErrorCode(int code) { return code >= 1 && code <= 16; }

}  // namespace

grpc::Status ToGrpc(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      ToValidUtf8(status.message().substr(0, kMaxGrpcMessageBytes)));
}

absl::Status FromGrpc(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  const int code = status.error_code();
  if (!IsErrorCode(code)) return absl::InternalError(status.error_message());
  return absl::Status(static_cast<absl::StatusCode>(code), status.error_message());
}

void ToProto(const absl::Status& status, v1::ErrorStatus* out) {
  TANDEM_CHECK(!status.ok());
  out->set_code(static_cast<int>(status.code()));
  out->set_message(
      ToValidUtf8(status.message()));  // a proto3 string that is no UTF-8 ends the peer's stream
}

absl::Status FromProto(const v1::ErrorStatus& error) {
  if (!IsErrorCode(error.code())) {
    return absl::InternalError(
        absl::StrCat("error of unknown code ", error.code(), ": ", error.message()));
  }
  return absl::Status(static_cast<absl::StatusCode>(error.code()), error.message());
}

}  // namespace tandem
