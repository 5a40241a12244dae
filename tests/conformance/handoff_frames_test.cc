// Goal: today's code reads every golden frame, and writes those whose bytes it decides. Method: the
// files of tests/conformance/golden against workers/rpc/handoff_codec.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <limits>
#include <string>
#include <vector>

#include "tests/fakes/byte_buffers.h"
#include "workers/rpc/handoff_codec.h"

namespace tandem {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::vector<float> kRows{0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4};
const step::CallId kCall{.step = 300, .layer = 1, .micro_batch = 1, .attempt = 0};

std::string Golden(const std::string& name) {
  const std::string path = std::string(std::getenv("TANDEM_SOURCE_DIR")) +
                           "/tests/conformance/golden/v1/" + name + ".binpb";
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  return {std::istreambuf_iterator<char>(file), {}};
}

// Of the stream that the frames belong to.
HandoffHello Hello() {
  HandoffHello hello;
  hello.hidden = 4;
  hello.layers = 2;
  return hello;
}

class GoldenFrames : public testing::TestWithParam<size_t> {  // bytes of a slice
 protected:
  static A2fFrame A2f(const std::string& name) {
    grpc::ByteBuffer buffer = test::Sliced(Golden(name), GetParam());
    absl::StatusOr<A2fFrame> frame = DecodeA2f(buffer);
    EXPECT_TRUE(frame.ok()) << name << ": " << frame.status();
    return frame.ok() ? *std::move(frame) : A2fFrame();
  }
  static F2aFrame F2a(const std::string& name) {
    grpc::ByteBuffer buffer = test::Sliced(Golden(name), GetParam());
    absl::StatusOr<F2aFrame> frame = DecodeF2a(buffer);
    EXPECT_TRUE(frame.ok()) << name << ": " << frame.status();
    return frame.ok() ? *std::move(frame) : F2aFrame();
  }
};

TEST_P(GoldenFrames, OpensAreRead) {
  for (const char* name : {"a2f_open", "newer_a2f_open"}) {
    const A2fFrame frame = A2f(name);
    ASSERT_TRUE(frame.open.has_value()) << name;
    const absl::StatusOr<HandoffHello> hello = ToHello(*frame.open);
    ASSERT_TRUE(hello.ok()) << hello.status();
    EXPECT_EQ(hello->attention_worker, "attention-0");
    EXPECT_EQ(hello->model, "smollm2");
    EXPECT_EQ(hello->hidden, 4u);
    EXPECT_EQ(hello->layers, 2u);
    EXPECT_EQ(hello->ffn_class, "");
    EXPECT_EQ(hello->shard_epoch, 1732752000000000001u);
    EXPECT_EQ(hello->max_rows, 64u);
    EXPECT_EQ(hello->shard, (FfnShard{0, 2, 0, 1}));
  }
  const absl::StatusOr<HandoffHello> full = ToHello(*A2f("a2f_open_full").open);
  ASSERT_TRUE(full.ok()) << full.status();
  EXPECT_THAT(full->ffn_class, HasSubstr("column/2"));
  EXPECT_EQ(full->shard, (FfnShard{1, 2, 1, 2}));
  EXPECT_EQ(full->link.bytes_per_s, 1e11);
}

TEST_P(GoldenFrames, CallsAreRead) {
  for (const char* name :
       {"a2f_call", "a2f_call_rows_last", "a2f_call_segments", "newer_a2f_call"}) {
    const A2fFrame frame = A2f(name);
    ASSERT_TRUE(frame.call.has_value()) << name;
    EXPECT_EQ(CallIdOf(frame.call->fields), kCall) << name;
    EXPECT_EQ(frame.call->rows, kRows) << name;
    EXPECT_EQ(frame.call->fields.shard_epoch(), 7u) << name;
    EXPECT_EQ(CheckCall(*frame.call, Hello(), 64), absl::OkStatus()) << name;
  }
  EXPECT_EQ(CallIdOf(A2f("a2f_call_again").call->fields).attempt, 1u);
  EXPECT_THAT(A2f("a2f_call_segments").call->fields.segments(), ElementsAre(0, 2, 0));
  EXPECT_EQ(A2f("a2f_call_no_rows").call->fields.rows(), 0u);
  const std::vector<float> odd = A2f("a2f_call_odd_values").call->rows;
  ASSERT_EQ(odd.size(), 4u);
  EXPECT_TRUE(std::signbit(odd[0]));
  EXPECT_THAT(odd, ElementsAre(-0.0f, std::numeric_limits<float>::denorm_min(),
                               std::numeric_limits<float>::max(), 1.0f / 3));
  EXPECT_TRUE(A2f("a2f_live").live->live());
}

TEST_P(GoldenFrames, CallsThatADenseVersion1HolderDoesNotServeAreRefused) {
  EXPECT_EQ(CheckCall(*A2f("a2f_call_routed").call, Hello(), 64).code(),
            absl::StatusCode::kUnimplemented);
  const absl::Status data_type = CheckCall(*A2f("newer_a2f_call_data_type").call, Hello(), 64);
  EXPECT_EQ(data_type, absl::InvalidArgumentError("hand-off: data type 77, only F32 is taken"));
}

TEST_P(GoldenFrames, GrantsAndRepliesAreRead) {
  for (const char* name : {"f2a_grant", "newer_f2a_grant"}) {
    const absl::StatusOr<HandoffGrantInfo> grant = ToGrant(*F2a(name).grant);
    ASSERT_TRUE(grant.ok()) << name << ": " << grant.status();
    EXPECT_EQ(grant->credit_bytes, 2048u);
    EXPECT_EQ(grant->max_rows, 64u);
    EXPECT_EQ(grant->shard_epoch, 7u);
  }
  EXPECT_EQ(ToGrant(*F2a("f2a_refusal").grant).status(),
            absl::FailedPreconditionError("STALE_SHARD: at epoch 8, not 7"));
  for (const char* name : {"f2a_reply", "f2a_reply_rows_last", "newer_f2a_reply"}) {
    const F2aFrame frame = F2a(name);
    ASSERT_TRUE(frame.reply.has_value()) << name;
    EXPECT_EQ(CallIdOf(frame.reply->fields), kCall) << name;
    EXPECT_EQ(frame.reply->rows, kRows) << name;
    EXPECT_EQ(frame.reply->data_bytes, 32u) << name;
    EXPECT_EQ(frame.reply->fields.compute_seconds(), 0.5) << name;
    EXPECT_EQ(frame.reply->fields.merged_rows(), 6u) << name;
  }
  EXPECT_EQ(F2a("f2a_reply_no_rows").reply->fields.step(), 301u);
  EXPECT_EQ(F2a("f2a_stale").reply->fields.shard_epoch(), 8u);
}

INSTANTIATE_TEST_SUITE_P(Slices, GoldenFrames, testing::Values(1, 7, 1 << 20));

TEST(GoldenFramesWritten, WhatWeWriteHasTheGoldenBytes) {
  HandoffHello hello{.attention_worker = "attention-0",
                     .model = "smollm2",
                     .hidden = 4,
                     .layers = 2,
                     .ffn_class = "",
                     .shard_epoch = 1732752000000000001u,
                     .max_rows = 64,
                     .shard = FfnShard{0, 2, 0, 1}};
  EXPECT_EQ(test::BytesOf(EncodeOpen(hello)), Golden("a2f_open"));
  tandem::A2f call;
  call.call = kCall;
  call.rows = 2;
  call.shard_epoch = 7;
  call.data = kRows;
  EXPECT_EQ(test::BytesOf(EncodeCall(call)), Golden("a2f_call_rows_last"));
  call.call = {.step = 301, .layer = 1, .micro_batch = 0, .attempt = 0};
  call.rows = 0;
  call.data.clear();
  EXPECT_EQ(test::BytesOf(EncodeCall(call)), Golden("a2f_call_no_rows"));
  EXPECT_EQ(test::BytesOf(EncodeLive(true, Instant::FromNanoseconds(5'000'000'000))),
            Golden("a2f_live"));
  EXPECT_EQ(test::BytesOf(EncodeGrant({.credit_bytes = 2048, .max_rows = 64, .shard_epoch = 7})),
            Golden("f2a_grant"));
  EXPECT_EQ(test::BytesOf(
                EncodeRefusal(absl::FailedPreconditionError("STALE_SHARD: at epoch 8, not 7"), 8)),
            Golden("f2a_refusal"));
  tandem::F2a reply;
  reply.call = kCall;
  reply.data = kRows;
  reply.queue_time = Duration::Milliseconds(250);
  reply.compute_time = Duration::Milliseconds(500);
  reply.merged_rows = 6;
  reply.shared = true;
  EXPECT_EQ(test::BytesOf(EncodeReply(reply, 7)), Golden("f2a_reply_rows_last"));
  tandem::F2a stale;
  stale.call = kCall;
  stale.status = absl::FailedPreconditionError("STALE_SHARD: at epoch 8, not 7");
  EXPECT_EQ(test::BytesOf(EncodeReply(stale, 8)), Golden("f2a_stale"));
}

}  // namespace
}  // namespace tandem
