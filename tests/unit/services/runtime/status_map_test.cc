#include "services/runtime/status_map.h"

#include <gtest/gtest.h>

#include <string>

#include "services/runtime/utf8.h"

namespace tandem {
namespace {

TEST(StatusMap, EveryCodeKeepsItsNumberAndMessageThroughGrpcAndTheWire) {
  for (int code = 1; code <= 16; code++) {
    const absl::Status status(static_cast<absl::StatusCode>(code), "worker 7: 4096 tokens");
    const grpc::Status grpc_status = ToGrpc(status);
    EXPECT_EQ(grpc_status.error_code(), code);
    EXPECT_EQ(FromGrpc(grpc_status), status);
    v1::ErrorStatus error;
    ToProto(status, &error);
    EXPECT_EQ(error.code(), code);
    EXPECT_EQ(FromProto(error), status);
  }
  EXPECT_TRUE(ToGrpc(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpc(grpc::Status::OK).ok());
}

TEST(StatusMap, CodesThatThePeerInventedAreInternalAndNamed) {
  v1::ErrorStatus error;
  error.set_message("x");
  EXPECT_EQ(FromProto(error), absl::InternalError("error of unknown code 0: x"));
  error.set_code(-4);
  EXPECT_EQ(FromProto(error), absl::InternalError("error of unknown code -4: x"));
  error.set_code(17);
  EXPECT_EQ(FromProto(error), absl::InternalError("error of unknown code 17: x"));
}

TEST(StatusMap, MessagesFromOutsideBecomeUtf8AndFitIntoTrailers) {
  const absl::Status hostile = absl::InvalidArgumentError("id \xFF\xFE");
  v1::ErrorStatus error;
  ToProto(hostile, &error);
  EXPECT_TRUE(IsValidUtf8(error.message()));
  v1::ErrorStatus parsed;
  EXPECT_TRUE(parsed.ParseFromString(error.SerializeAsString()));
  EXPECT_TRUE(IsValidUtf8(ToGrpc(hostile).error_message()));
  EXPECT_LE(ToGrpc(absl::InternalError(std::string(100'000, 'x'))).error_message().size(), 2048u);
}

}  // namespace
}  // namespace tandem
