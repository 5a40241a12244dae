#include "workers/rpc/handoff_codec.h"

#include <absl/strings/str_cat.h>
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>
#include <google/protobuf/wire_format_lite.h>
#include <grpcpp/support/proto_buffer_reader.h>

#include <algorithm>
#include <bit>
#include <string>
#include <utility>

#include "scheduler/base/status.h"
#include "services/runtime/proto_words.h"
#include "services/runtime/status_map.h"
#include "workers/rpc/limits.h"

namespace tandem {
namespace {

using google::protobuf::internal::WireFormatLite;
using google::protobuf::io::CodedInputStream;
using google::protobuf::io::CodedOutputStream;
using google::protobuf::io::StringOutputStream;

static_assert(std::endian::native == std::endian::little, "rows travel as little-endian F32");

// Field numbers of handoff.proto: the second alternative of both messages carries rows; an A2F
// message has a third.
constexpr int kFirstAlternative = 1;
constexpr int kRowsAlternative = 2;
constexpr int kLiveAlternative = 3;
constexpr int kA2fData = v1::A2fCall::kDataFieldNumber;
constexpr int kF2aData = v1::F2aReply::kDataFieldNumber;
static_assert(v1::A2fMessage::kOpenFieldNumber == kFirstAlternative &&
              v1::A2fMessage::kCallFieldNumber == kRowsAlternative &&
              v1::A2fMessage::kLiveFieldNumber == kLiveAlternative);
static_assert(v1::F2aMessage::kGrantFieldNumber == kFirstAlternative &&
              v1::F2aMessage::kReplyFieldNumber == kRowsAlternative);

grpc::ByteBuffer Encode(const google::protobuf::MessageLite& message) {
  const grpc::Slice slice(message.SerializeAsString());
  return grpc::ByteBuffer(&slice, 1);
}

// `fields` without its data, then the data, inside the outer message's second alternative.
grpc::ByteBuffer EncodeWithRows(const google::protobuf::MessageLite& fields, int data_field,
                                std::vector<float> rows) {
  const size_t fields_bytes = fields.ByteSizeLong();
  const uint64_t data_bytes = rows.size() * sizeof(float);
  const uint32_t data_tag =
      WireFormatLite::MakeTag(data_field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
  uint64_t inner_bytes = fields_bytes;
  if (data_bytes > 0) {
    inner_bytes += CodedOutputStream::VarintSize32(data_tag) +
                   CodedOutputStream::VarintSize64(data_bytes) + data_bytes;
  }
  std::string head;
  {
    StringOutputStream stream(&head);
    CodedOutputStream out(&stream);
    out.WriteTag(
        WireFormatLite::MakeTag(kRowsAlternative, WireFormatLite::WIRETYPE_LENGTH_DELIMITED));
    out.WriteVarint64(inner_bytes);
    fields.SerializeWithCachedSizes(&out);
    if (data_bytes > 0) {
      out.WriteTag(data_tag);
      out.WriteVarint64(data_bytes);
    }
  }
  if (data_bytes == 0) {
    const grpc::Slice slice(head);
    return grpc::ByteBuffer(&slice, 1);
  }
  auto* lent = new std::vector<float>(std::move(rows));
  const auto give_back = [](void* vector) { delete static_cast<std::vector<float>*>(vector); };
  const grpc::Slice slices[] = {grpc::Slice(head),
                                grpc::Slice(lent->data(), data_bytes, give_back, lent)};
  return grpc::ByteBuffer(slices, 2);
}

// Reads `bytes` bytes as floats; a last piece that is none is skipped. Appends from gRPC's own
// slices, so that the vector's memory is written once: resizing it first would fill it with zeros.
// A float may lie across two slices.
bool ReadRows(CodedInputStream& in, int bytes, std::vector<float>& rows) {
  rows.clear();
  rows.reserve(static_cast<size_t>(bytes) / sizeof(float));
  while (bytes >= static_cast<int>(sizeof(float))) {
    const void* slice = nullptr;
    int available = 0;
    if (!in.GetDirectBufferPointer(&slice, &available)) return false;
    const int count = std::min(available, bytes) / static_cast<int>(sizeof(float));
    if (count == 0) {
      float across = 0;
      if (!in.ReadRaw(&across, sizeof(across))) return false;
      rows.push_back(across);
      bytes -= sizeof(across);
      continue;
    }
    const auto* first =
        static_cast<const float*>(slice);  // of any alignment: only ever copied as bytes
    rows.insert(rows.end(), first, first + count);
    if (!in.Skip(count * static_cast<int>(sizeof(float)))) return false;
    bytes -= count * static_cast<int>(sizeof(float));
  }
  return in.Skip(bytes);
}

// Reads one length-delimited message of which `data_field` goes to `rows`, and everything else to
// `fields`.
template <typename Fields>
bool ReadWithRows(CodedInputStream& in, int data_field, Fields& fields, std::vector<float>& rows,
                  uint64_t& data_bytes) {
  int length = 0;
  if (!in.ReadVarintSizeAsInt(&length)) return false;
  const CodedInputStream::Limit limit = in.PushLimit(length);
  std::string rest;
  {
    StringOutputStream stream(&rest);
    CodedOutputStream out(&stream);
    while (const uint32_t tag = in.ReadTag()) {
      if (tag != WireFormatLite::MakeTag(data_field, WireFormatLite::WIRETYPE_LENGTH_DELIMITED)) {
        if (!WireFormatLite::SkipField(&in, tag, &out)) return false;
        continue;
      }
      int bytes = 0;
      if (!in.ReadVarintSizeAsInt(&bytes) || bytes > in.BytesUntilLimit()) return false;
      data_bytes = static_cast<uint64_t>(bytes);
      if (!ReadRows(in, bytes, rows)) return false;
    }
  }
  if (in.BytesUntilLimit() != 0 || !in.ConsumedEntireMessage()) return false;
  in.PopLimit(limit);
  return fields.ParseFromString(rest);
}

template <typename Message>
bool ReadPlain(CodedInputStream& in, Message& message) {
  int length = 0;
  std::string bytes;
  return in.ReadVarintSizeAsInt(&length) && in.ReadString(&bytes, length) &&
         message.ParseFromString(bytes);
}

// The outer message. As in protobuf the last alternative on the wire is the one that counts.
// `live` is null where the message has no such alternative: then it is an unknown field.
template <typename First, typename WithRows>
bool ReadMessage(grpc::ByteBuffer& buffer, int data_field, std::optional<First>& first,
                 std::optional<WithRows>& second, std::optional<v1::HandoffLive>* live) {
  grpc::ProtoBufferReader reader(&buffer);
  if (!reader.status().ok()) return false;
  CodedInputStream in(&reader);
  const auto is = [](uint32_t tag, int alternative) {
    return tag == WireFormatLite::MakeTag(alternative, WireFormatLite::WIRETYPE_LENGTH_DELIMITED);
  };
  const auto forget_live = [live] {
    if (live != nullptr) live->reset();
  };
  while (const uint32_t tag = in.ReadTag()) {
    if (is(tag, kFirstAlternative)) {
      second.reset();
      forget_live();
      if (!ReadPlain(in, first.emplace())) return false;
    } else if (is(tag, kRowsAlternative)) {
      first.reset();
      forget_live();
      WithRows& message = second.emplace();
      if (!ReadWithRows(in, data_field, message.fields, message.rows, message.data_bytes))
        return false;
    } else if (live != nullptr && is(tag, kLiveAlternative)) {
      first.reset();
      second.reset();
      if (!ReadPlain(in, live->emplace())) return false;
    } else if (!WireFormatLite::SkipField(&in, tag)) {
      return false;
    }
  }
  return in.ConsumedEntireMessage();
}

template <typename Fields>
void SetCallId(const step::CallId& call, Fields& fields) {
  fields.set_step(call.step);
  fields.set_layer(call.layer);
  fields.set_micro_batch(call.micro_batch);
  fields.set_attempt(call.attempt);
}

void SetLink(const cost::LinkSpeed& link, v1::EmulatedLink* out) {
  out->set_bytes_per_second(link.bytes_per_s);
  out->set_latency_seconds(link.latency_seconds);
}

absl::StatusOr<cost::LinkSpeed> ToLink(const v1::EmulatedLink& link) {
  if (!(link.bytes_per_second() > 0 && link.bytes_per_second() < 1e18) ||
      !(link.latency_seconds() >= 0 && link.latency_seconds() <= 10)) {
    return absl::InvalidArgumentError(absl::StrCat("hand-off: a link of ", link.bytes_per_second(),
                                                   " B/s and ", link.latency_seconds(), " s"));
  }
  return cost::LinkSpeed{link.bytes_per_second(), link.latency_seconds()};
}

}  // namespace

grpc::ByteBuffer EncodeOpen(const HandoffHello& hello) {
  v1::A2fMessage message;
  v1::HandoffOpen& open = *message.mutable_open();
  open.set_protocol_version(kProtocolVersion);
  open.set_attention_worker(hello.attention_worker);
  open.set_model(hello.model);
  open.set_hidden(hello.hidden);
  open.set_layers(hello.layers);
  open.set_ffn_class(hello.ffn_class);
  open.set_shard_epoch(hello.shard_epoch);
  open.set_max_rows(hello.max_rows);
  if (hello.shard.has_value()) ToProto(*hello.shard, open.mutable_shard());
  if (hello.link.bytes_per_s > 0) SetLink(hello.link, open.mutable_link());
  return Encode(message);
}

grpc::ByteBuffer EncodeCall(A2f call) {
  v1::A2fCall fields;
  SetCallId(call.call, fields);
  fields.set_rows(call.rows);
  fields.set_dtype(v1::DATA_TYPE_F32);
  fields.set_shard_epoch(call.shard_epoch);
  fields.set_arrives_at_nanoseconds(call.arrives_at.nanoseconds());
  return EncodeWithRows(fields, kA2fData, std::move(call.data));
}

grpc::ByteBuffer EncodeLive(bool live, Instant arrives_at) {
  v1::A2fMessage message;
  message.mutable_live()->set_live(live);
  message.mutable_live()->set_arrives_at_nanoseconds(arrives_at.nanoseconds());
  return Encode(message);
}

grpc::ByteBuffer EncodeGrant(const HandoffGrantInfo& grant) {
  v1::F2aMessage message;
  message.mutable_grant()->set_credit_bytes(grant.credit_bytes);
  message.mutable_grant()->set_max_rows(grant.max_rows);
  message.mutable_grant()->set_shard_epoch(grant.shard_epoch);
  message.mutable_grant()->set_protocol_version(kProtocolVersion);
  if (grant.link.bytes_per_s > 0) SetLink(grant.link, message.mutable_grant()->mutable_link());
  return Encode(message);
}

grpc::ByteBuffer EncodeRefusal(const absl::Status& status, uint64_t shard_epoch) {
  v1::F2aMessage message;
  ToProto(status, message.mutable_grant()->mutable_error());
  message.mutable_grant()->set_shard_epoch(shard_epoch);
  message.mutable_grant()->set_protocol_version(kProtocolVersion);
  return Encode(message);
}

grpc::ByteBuffer EncodeReply(F2a reply, uint64_t shard_epoch) {
  v1::F2aReply fields;
  SetCallId(reply.call, fields);
  fields.set_queue_seconds(reply.queue_time.seconds());
  fields.set_compute_seconds(reply.compute_time.seconds());
  fields.set_merged_rows(reply.merged_rows);
  fields.set_shared(reply.shared);
  fields.set_arrives_at_nanoseconds(reply.arrives_at.nanoseconds());
  if (!reply.status.ok()) {
    ToProto(reply.status, fields.mutable_error());
    fields.set_shard_epoch(shard_epoch);
    reply.data.clear();
  }
  return EncodeWithRows(fields, kF2aData, std::move(reply.data));
}

absl::StatusOr<A2fFrame> DecodeA2f(grpc::ByteBuffer& buffer) {
  A2fFrame frame;
  if (!ReadMessage(buffer, kA2fData, frame.open, frame.call, &frame.live)) {
    return absl::InvalidArgumentError(
        absl::StrCat("hand-off: ", buffer.Length(), " bytes are no A2fMessage"));
  }
  if (!frame.open && !frame.call && !frame.live)
    return absl::InvalidArgumentError("hand-off: an A2fMessage without open, call or live");
  return frame;
}

absl::StatusOr<F2aFrame> DecodeF2a(grpc::ByteBuffer& buffer) {
  F2aFrame frame;
  if (!ReadMessage(buffer, kF2aData, frame.grant, frame.reply, nullptr)) {
    return absl::InvalidArgumentError(
        absl::StrCat("hand-off: ", buffer.Length(), " bytes are no F2aMessage"));
  }
  if (!frame.grant && !frame.reply)
    return absl::InvalidArgumentError("hand-off: an F2aMessage without grant or reply");
  return frame;
}

absl::StatusOr<HandoffHello> ToHello(const v1::HandoffOpen& open) {
  if (open.protocol_version() != kProtocolVersion) {
    return absl::InvalidArgumentError(absl::StrCat("hand-off: protocol version ",
                                                   open.protocol_version(), ", this worker speaks ",
                                                   kProtocolVersion));
  }
  if (open.attention_worker().empty() || open.attention_worker().size() > kMaxNameBytes ||
      open.model().size() > kMaxNameBytes || open.ffn_class().size() > 4 * kMaxNameBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("hand-off: a name is empty or longer than ", kMaxNameBytes, " bytes"));
  }
  if (open.hidden() < 1 || open.hidden() > kMaxHidden || open.layers() < 1 ||
      open.layers() > kMaxLayers) {
    return absl::InvalidArgumentError(absl::StrCat("hand-off: hidden ", open.hidden(),
                                                   " or layers ", open.layers(), " out of range"));
  }
  if (open.max_rows() < 1 ||
      uint64_t{open.max_rows()} * open.hidden() * sizeof(float) > kMaxRowBytes) {
    return absl::InvalidArgumentError(absl::StrCat("hand-off: ", open.max_rows(), " rows of ",
                                                   open.hidden(), " values exceed a frame of ",
                                                   kMaxRowBytes, " bytes"));
  }
  std::optional<FfnShard> shard;
  if (open.has_shard()) {
    shard = ToShard(open.shard());
    if (absl::Status status = CheckShard(*shard, open.layers()); !status.ok())
      return absl::InvalidArgumentError(absl::StrCat("hand-off: shard: ", status.message()));
  }
  cost::LinkSpeed link;
  if (open.has_link()) {
    ASSIGN_OR_RETURN(link, ToLink(open.link()));
  }
  return HandoffHello{.attention_worker = open.attention_worker(),
                      .model = open.model(),
                      .hidden = open.hidden(),
                      .layers = open.layers(),
                      .ffn_class = open.ffn_class(),
                      .shard_epoch = open.shard_epoch(),
                      .max_rows = open.max_rows(),
                      .shard = shard,
                      .link = link};
}

absl::StatusOr<HandoffGrantInfo> ToGrant(const v1::HandoffGrant& grant) {
  if (grant.has_error()) return FromProto(grant.error());
  if (grant.protocol_version() != 0 && grant.protocol_version() != kProtocolVersion) {
    return absl::InvalidArgumentError(absl::StrCat("hand-off: a grant of protocol version ",
                                                   grant.protocol_version(), ", asked for ",
                                                   kProtocolVersion));
  }
  if (grant.max_rows() < 1) return absl::InvalidArgumentError("hand-off: a grant of 0 rows");
  cost::LinkSpeed link;
  if (grant.has_link()) {
    ASSIGN_OR_RETURN(link, ToLink(grant.link()));
  }
  return HandoffGrantInfo{.credit_bytes = grant.credit_bytes(),
                          .max_rows = grant.max_rows(),
                          .shard_epoch = grant.shard_epoch(),
                          .link = link};
}

step::CallId CallIdOf(const v1::A2fCall& call) {
  return {.step = call.step(),
          .layer = call.layer(),
          .micro_batch = call.micro_batch(),
          .attempt = call.attempt()};
}

step::CallId CallIdOf(const v1::F2aReply& reply) {
  return {.step = reply.step(),
          .layer = reply.layer(),
          .micro_batch = reply.micro_batch(),
          .attempt = reply.attempt()};
}

namespace {

// What a call may say beside its rows.
absl::Status CheckExtras(const v1::A2fCall& fields) {
  if (fields.has_routing()) {
    return absl::UnimplementedError(absl::StrCat("hand-off: routing to ", fields.routing().slots(),
                                                 " experts a row; this worker's layers are dense"));
  }
  if (!fields.scales().empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat("hand-off: ", fields.scales().size(), " bytes of scales with F32 rows"));
  }
  if (fields.segments().empty()) return absl::OkStatus();
  uint64_t sum = 0;
  for (const uint32_t rows : fields.segments()) sum += rows;
  if (sum == fields.rows()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("hand-off: segments of ", sum, " rows in a call of ", fields.rows()));
}

}  // namespace

absl::Status CheckCall(const A2fFrame::Call& call, const HandoffHello& hello, uint32_t max_rows) {
  const v1::A2fCall& fields = call.fields;
  if (fields.layer() >= hello.layers) {
    return absl::InvalidArgumentError(
        absl::StrCat("hand-off: layer ", fields.layer(), " of ", hello.layers));
  }
  if (fields.dtype() != v1::DATA_TYPE_F32) {
    return absl::InvalidArgumentError(
        absl::StrCat("hand-off: data type ", fields.dtype(), ", only F32 is taken"));
  }
  if (fields.rows() > max_rows) {
    return absl::InvalidArgumentError(
        absl::StrCat("hand-off: ", fields.rows(), " rows exceed ", max_rows, " of the grant"));
  }
  const uint64_t bytes = uint64_t{fields.rows()} * hello.hidden * sizeof(float);
  if (call.data_bytes != bytes) {
    return absl::InvalidArgumentError(absl::StrCat("hand-off: ", call.data_bytes,
                                                   " bytes of data, ", fields.rows(), " rows of ",
                                                   hello.hidden, " F32 need ", bytes));
  }
  return CheckExtras(fields);
}

}  // namespace tandem
