// The hand-off's own reading and writing of protobuf bytes, held against protobuf's.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "tests/fakes/byte_buffers.h"
#include "workers/rpc/handoff_codec.h"

namespace tandem {
namespace {

std::vector<float> Rows(size_t count) {
  std::vector<float> rows;
  for (size_t i = 0; i < count; ++i) rows.push_back(static_cast<float>(i) * 0.37f - 5);
  return rows;
}

A2f MakeCall(size_t values) {
  A2f call;
  call.call = {.step = 1ull << 40, .layer = 29, .micro_batch = 3, .attempt = 2};
  call.rows = 4;
  call.shard_epoch = 1764000000000000000;
  call.data = Rows(values);
  return call;
}

absl::string_view BytesOf(const std::vector<float>& rows) {
  return {reinterpret_cast<const char*>(rows.data()), rows.size() * sizeof(float)};
}

TEST(HandoffCodec, ProtobufReadsWhatWeWrite) {
  for (size_t values : {size_t{0}, size_t{1}, size_t{576}, size_t{20000}}) {
    v1::A2fMessage message;
    ASSERT_TRUE(message.ParseFromString(test::BytesOf(EncodeCall(MakeCall(values)))));
    ASSERT_TRUE(message.has_call());
    const v1::A2fCall& call = message.call();
    EXPECT_EQ(CallIdOf(call), MakeCall(0).call);
    EXPECT_EQ(call.rows(), 4u);
    EXPECT_EQ(call.shard_epoch(), 1764000000000000000u);
    EXPECT_EQ(call.dtype(), v1::DATA_TYPE_F32);
    const std::vector<float> rows = Rows(values);
    EXPECT_EQ(call.data(), BytesOf(rows));
  }
}

TEST(HandoffCodec, AHelloCarriesTheShardAndHostileOnesAreRefused) {
  HandoffHello hello;
  hello.attention_worker = "a";
  hello.hidden = 4;
  hello.layers = 30;
  hello.max_rows = 8;
  hello.shard = FfnShard{0, 15, 1, 2};
  const auto read = [](grpc::ByteBuffer buffer) { return ToHello(*DecodeA2f(buffer)->open); };
  EXPECT_EQ(read(EncodeOpen(hello))->shard, hello.shard);
  hello.shard.reset();
  EXPECT_FALSE(read(EncodeOpen(hello))->shard.has_value());
  for (const FfnShard& bad :
       {FfnShard{5, 5}, FfnShard{9, 3}, FfnShard{0, 31}, FfnShard{0, 30, 0, 0},
        FfnShard{0, 30, 2, 2}, FfnShard{0, 30, 0, ~0u}}) {
    hello.shard = bad;
    const absl::Status status = read(EncodeOpen(hello)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_EQ(status.message().substr(0, 17), "hand-off: shard: ") << status;
  }
}

TEST(HandoffCodec, WeReadWhatProtobufWritesHoweverItIsCut) {
  v1::F2aMessage message;
  v1::F2aReply& reply = *message.mutable_reply();
  reply.set_step(9);
  reply.set_queue_seconds(0.5);
  reply.set_merged_rows(12);
  reply.set_shard_epoch(77);  // after `data` on the wire
  const std::vector<float> rows = Rows(1001);
  reply.set_data(rows.data(), rows.size() * sizeof(float));
  const std::string bytes = message.SerializeAsString();
  for (size_t piece : {1, 2, 3, 5, 7, 64, 1000, 4096, 100000}) {
    grpc::ByteBuffer buffer = test::Sliced(bytes, piece);
    auto frame = DecodeF2a(buffer);
    ASSERT_TRUE(frame.ok()) << frame.status();
    ASSERT_TRUE(frame->reply.has_value());
    EXPECT_EQ(frame->reply->rows, rows);
    EXPECT_EQ(frame->reply->data_bytes, rows.size() * sizeof(float));
    EXPECT_EQ(frame->reply->fields.merged_rows(), 12u);
    EXPECT_EQ(frame->reply->fields.queue_seconds(), 0.5);
    EXPECT_EQ(frame->reply->fields.shard_epoch(), 77u);
    EXPECT_TRUE(frame->reply->fields.data().empty());
  }
}

TEST(HandoffCodec, DataOfAnyLengthIsCounted) {
  for (size_t extra : {0, 1, 2, 3}) {
    v1::A2fMessage message;
    message.mutable_call()->set_data(std::string(8 + extra, 'x'));
    grpc::ByteBuffer buffer = test::Sliced(message.SerializeAsString(), 3);
    auto frame = DecodeA2f(buffer);
    ASSERT_TRUE(frame.ok());
    EXPECT_EQ(frame->call->data_bytes, 8 + extra);
    EXPECT_EQ(frame->call->rows.size(), 2u);
  }
}

TEST(HandoffCodec, UnknownFieldsAreSkippedAndTheLastAlternativeCounts) {
  v1::A2fMessage open, call;
  open.mutable_open()->set_attention_worker("a");
  call.mutable_call()->set_step(5);
  call.mutable_call()->set_data("12345678");
  const std::string unknown = "\x9a\x06\x03xyz";  // field 99, 3 bytes
  grpc::ByteBuffer buffer = test::Sliced(
      unknown + open.SerializeAsString() + unknown + call.SerializeAsString() + unknown, 4);
  auto frame = DecodeA2f(buffer);
  ASSERT_TRUE(frame.ok()) << frame.status();
  EXPECT_FALSE(frame->open.has_value());
  EXPECT_EQ(frame->call->fields.step(), 5u);
  EXPECT_EQ(frame->call->rows.size(), 2u);
}

TEST(HandoffCodec, EveryCutFrameIsRefused) {
  const std::string whole = test::BytesOf(EncodeCall(MakeCall(5)));
  for (size_t length = 0; length < whole.size(); ++length) {
    grpc::ByteBuffer buffer = test::Sliced(whole.substr(0, length), 6);
    EXPECT_FALSE(DecodeA2f(buffer).ok()) << length << " of " << whole.size() << " bytes";
  }
}

// Whatever bytes come: refused where protobuf refuses, and where both read, they read the same.
TEST(HandoffCodec, SpoiledBytesAreReadAsProtobufReadsThem) {
  const std::string whole = test::BytesOf(EncodeCall(MakeCall(12)));
  Random random(20261124);
  int read = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string bytes = whole;
    for (uint64_t n = 1 + random.Below(4); n > 0; --n) {
      // The first bytes are tags and lengths: spoil them more often.
      const uint64_t at = random.Below(2) == 0 ? random.Below(24) : random.Below(bytes.size());
      bytes[at] = static_cast<char>(random.Next());
    }
    if (random.Below(4) == 0) bytes.resize(random.Below(bytes.size()));
    v1::A2fMessage message;
    const bool protobuf_reads = message.ParseFromString(bytes);
    grpc::ByteBuffer buffer = test::Sliced(bytes, 1 + random.Below(40));
    auto frame = DecodeA2f(buffer);
    if (!frame.ok()) {
      EXPECT_TRUE(!protobuf_reads || message.message_case() == v1::A2fMessage::MESSAGE_NOT_SET)
          << i;
      continue;
    }
    ++read;
    if (!protobuf_reads) continue;
    ASSERT_EQ(frame->call.has_value(), message.has_call()) << i;
    if (!message.has_call()) continue;
    EXPECT_EQ(frame->call->data_bytes, message.call().data().size()) << i;
    EXPECT_EQ(CallIdOf(frame->call->fields), CallIdOf(message.call())) << i;
    const std::vector<float>& rows = frame->call->rows;
    EXPECT_EQ(BytesOf(rows), message.call().data().substr(0, rows.size() * sizeof(float))) << i;
  }
  EXPECT_GT(read, 1000);
}

TEST(HandoffCodec, LengthPastTheFrameAllocatesNothing) {
  // A call that claims 2 GB of data in a message of a few bytes.
  std::string bytes = "\x12\x08\x3a";
  bytes += "\xff\xff\xff\xff\x07";
  bytes += "ab";
  grpc::ByteBuffer buffer = test::Sliced(bytes, 100);
  EXPECT_FALSE(DecodeA2f(buffer).ok());
}

TEST(HandoffCodec, RefusalAndErrorCarryTheirStatus) {
  grpc::ByteBuffer refusal = EncodeRefusal(absl::FailedPreconditionError("STALE_SHARD 7"), 9);
  auto frame = DecodeF2a(refusal);
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(ToGrant(*frame->grant).status(), absl::FailedPreconditionError("STALE_SHARD 7"));
  F2a reply;
  reply.data = Rows(10);  // not sent with an error
  reply.status = absl::ResourceExhaustedError("4096 calls queued");
  grpc::ByteBuffer error = EncodeReply(std::move(reply), 9);
  frame = DecodeF2a(error);
  ASSERT_TRUE(frame.ok());
  EXPECT_EQ(frame->reply->fields.error().message(), "4096 calls queued");
  EXPECT_EQ(frame->reply->fields.shard_epoch(), 9u);
  EXPECT_EQ(frame->reply->data_bytes, 0u);
}

}  // namespace
}  // namespace tandem
