// A2F and F2A messages from a peer: our codec reads what protobuf reads, however gRPC cut the
// bytes, and a call that is taken has exactly its rows.
//
// Input: 'a' and an A2fMessage, or any other byte and an F2aMessage.

#include <cstring>

#include "tests/fuzz/fuzz_input.h"
#include "workers/rpc/handoff_codec.h"

namespace tandem {
namespace {

// `bytes` in slices of `slice_bytes`: a float may lie across two.
grpc::ByteBuffer Sliced(absl::string_view bytes, size_t slice_bytes) {
  std::vector<grpc::Slice> slices;
  for (size_t at = 0; at < bytes.size(); at += slice_bytes) {
    const absl::string_view piece = bytes.substr(at, slice_bytes);
    slices.emplace_back(piece.data(), piece.size());
  }
  if (slices.empty()) slices.emplace_back();
  return grpc::ByteBuffer(slices.data(), slices.size());
}

// `read` is what the codec made of `whole`, protobuf's own reading. Rows are whole floats: a last
// piece is dropped, and its bytes are counted.
template <typename Frame, typename Fields>
void CheckRows(const Frame& read, Fields whole) {
  TANDEM_CHECK(read.data_bytes == whole.data().size());
  TANDEM_CHECK(read.rows.size() == read.data_bytes / sizeof(float));
  TANDEM_CHECK(read.rows.empty() || std::memcmp(read.rows.data(), whole.data().data(),
                                                read.rows.size() * sizeof(float)) == 0);
  whole.clear_data();
  TANDEM_CHECK(read.fields.SerializeAsString() == whole.SerializeAsString());
}

// The codec on bytes that protobuf wrote itself. `compare` gets what it read.
template <typename Message, typename Decode, typename Compare>
void CheckAgainstProtobuf(absl::string_view input, Decode decode, Compare compare) {
  Message message;
  if (!fuzz::Parse(input, message) || message.message_case() == Message::MESSAGE_NOT_SET) return;
  const std::string bytes = message.SerializeAsString();
  for (const size_t slice_bytes : {bytes.size() + 1, size_t{7}}) {
    grpc::ByteBuffer buffer = Sliced(bytes, slice_bytes);
    const auto frame = decode(buffer);
    TANDEM_CHECK(frame.ok());
    compare(*frame, message);
  }
}

void CheckCallIsWhole(const A2fFrame::Call& call) {
  constexpr uint32_t kMaxRows = 64;
  HandoffHello hello;
  hello.hidden = 4;
  hello.layers = 2;
  const absl::Status status = CheckCall(call, hello, kMaxRows);
  if (!status.ok()) return fuzz::CheckRefusal(status);
  TANDEM_CHECK(call.fields.rows() <= kMaxRows && call.fields.layer() < hello.layers);
  TANDEM_CHECK(call.rows.size() == size_t{call.fields.rows()} * hello.hidden);
  A2f sent{CallIdOf(call.fields), call.fields.rows(), call.fields.shard_epoch(), call.rows};
  grpc::ByteBuffer buffer = EncodeCall(sent);
  const auto again = DecodeA2f(buffer);
  TANDEM_CHECK(again.ok() && again->call && again->call->data_bytes == call.data_bytes);
  TANDEM_CHECK(CallIdOf(again->call->fields) == sent.call);
}

void OneA2f(absl::string_view bytes) {
  grpc::ByteBuffer buffer = Sliced(bytes, 5);
  const auto frame = DecodeA2f(buffer);
  if (!frame.ok()) fuzz::CheckRefusal(frame.status());
  if (frame.ok() && frame->open) {
    const auto hello = ToHello(*frame->open);
    if (!hello.ok()) fuzz::CheckRefusal(hello.status());
    if (hello.ok()) {
      TANDEM_CHECK(hello->hidden > 0 && hello->layers > 0 && hello->max_rows > 0);
      TANDEM_CHECK(!hello->shard || CheckShard(*hello->shard, hello->layers).ok());
    }
  }
  if (frame.ok() && frame->call) CheckCallIsWhole(*frame->call);
  CheckAgainstProtobuf<v1::A2fMessage>(
      bytes, DecodeA2f, [](const A2fFrame& read, const v1::A2fMessage& message) {
        TANDEM_CHECK(read.open.has_value() == message.has_open());
        TANDEM_CHECK(read.call.has_value() == message.has_call());
        TANDEM_CHECK(read.live.has_value() == message.has_live());
        if (read.call) CheckRows(*read.call, message.call());
        if (read.live) {
          TANDEM_CHECK(read.live->SerializeAsString() == message.live().SerializeAsString());
        }
      });
}

void OneF2a(absl::string_view bytes) {
  grpc::ByteBuffer buffer = Sliced(bytes, 5);
  const auto frame = DecodeF2a(buffer);
  if (!frame.ok()) fuzz::CheckRefusal(frame.status());
  if (frame.ok() && frame->grant) {
    const auto grant = ToGrant(*frame->grant);
    TANDEM_CHECK(!grant.ok() || grant->max_rows > 0);
  }
  CheckAgainstProtobuf<v1::F2aMessage>(
      bytes, DecodeF2a, [](const F2aFrame& read, const v1::F2aMessage& message) {
        TANDEM_CHECK(read.grant.has_value() == message.has_grant());
        TANDEM_CHECK(read.reply.has_value() == message.has_reply());
        if (read.reply) CheckRows(*read.reply, message.reply());
      });
}

}  // namespace
}  // namespace tandem

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  tandem::fuzz::FuzzInput input(data, size);
  const bool a2f = input.Byte() == 'a';
  a2f ? tandem::OneA2f(input.Rest()) : tandem::OneF2a(input.Rest());
  return 0;
}
