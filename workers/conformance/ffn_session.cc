#include "workers/conformance/ffn_session.h"

#include <absl/strings/str_cat.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/support/channel_arguments.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "scheduler/base/random.h"
#include "scheduler/base/status.h"
#include "services/runtime/grpc_server.h"
#include "services/runtime/status_map.h"

namespace tandem::conformance {
namespace {

constexpr uint32_t kProtocolVersion = 1;

std::string CodeName(int code) {
  return absl::StatusCodeToString(static_cast<absl::StatusCode>(code));
}

}  // namespace

absl::Status Failed(absl::string_view what) { return absl::FailedPreconditionError(what); }

std::string Came(const Heard& heard, Duration patience) {
  if (heard.silent()) return absl::StrCat("no reply within ", patience.seconds(), " s");
  if (heard.end.has_value()) {
    return absl::StrCat("the stream ended with ", CodeName(heard.end->error_code()),
                        heard.end->error_message().empty() ? "" : ": ", heard.end->error_message());
  }
  if (heard.message->has_grant()) {
    const v1::HandoffGrant& grant = heard.message->grant();
    if (!grant.has_error()) return "a grant came";
    return absl::StrCat("a refusal came, ", CodeName(grant.error().code()), ": ",
                        grant.error().message());
  }
  if (!heard.message->has_reply()) return "a message without grant or reply came";
  const v1::F2aReply& reply = heard.message->reply();
  const std::string name = NameOf({.step = reply.step(),
                                   .layer = reply.layer(),
                                   .micro_batch = reply.micro_batch(),
                                   .attempt = reply.attempt()});
  if (!reply.has_error())
    return absl::StrCat("a reply of ", reply.data().size(), " bytes to ", name, " came");
  return absl::StrCat("an error reply to ", name, " came, ", CodeName(reply.error().code()), ": ",
                      reply.error().message());
}

std::string NameOf(const step::CallId& id) {
  return absl::StrCat("step ", id.step, " layer ", id.layer, " micro-batch ", id.micro_batch,
                      " attempt ", id.attempt);
}

FfnSession::FfnSession(const FfnSuiteOptions& options, StageBackend& reference)
    : options_(options),
      reference_(reference),
      hidden_(reference.info().dimensions.hidden),
      layers_(reference.info().dimensions.layers),
      channel_(NewChannel()) {}

std::shared_ptr<grpc::Channel> FfnSession::NewChannel() const {
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxFrameBytes);
  arguments.SetMaxSendMessageSize(kMaxFrameBytes);
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  arguments.SetInt(GRPC_ARG_HTTP2_BDP_PROBE, 0);
  return grpc::CreateCustomChannel(options_.address, grpc::InsecureChannelCredentials(), arguments);
}

absl::Status FfnSession::Begin() {
  epoch_ = options_.epoch.value_or(0);
  FfnPeer peer(channel_, options_.patience);
  peer.Send(OpenMessage(1));
  const Heard heard = peer.Await();
  if (heard.silent() || heard.end.has_value()) {
    return absl::UnavailableError(
        absl::StrCat(options_.address, ": ", Came(heard, options_.patience)));
  }
  if (!options_.epoch.has_value() && heard.message->grant().has_error())
    epoch_ = heard.message->grant().shard_epoch();
  return absl::OkStatus();
}

Rows FfnSession::MakeRows(uint64_t seed, uint32_t count) const {
  Random random(seed);
  Rows rows(size_t{count} * hidden_);
  for (float& value : rows) {
    // Near normal, some far out, as residuals are.
    const double draw = random.Uniform() + random.Uniform() + random.Uniform() - 1.5;
    value = static_cast<float>(draw * (random.Below(97) == 0 ? 12 : 2));
  }
  return rows;
}

Call FfnSession::NewCall(uint32_t layer, Rows rows) {
  return {{.step = next_step_++, .layer = layer, .micro_batch = 0, .attempt = 0}, std::move(rows)};
}

v1::A2fMessage FfnSession::OpenMessage(uint32_t max_rows) const {
  v1::A2fMessage message;
  v1::HandoffOpen& open = *message.mutable_open();
  open.set_protocol_version(kProtocolVersion);
  open.set_attention_worker("conformance");
  open.set_model(options_.model_name);
  open.set_hidden(hidden_);
  open.set_layers(layers_);
  open.set_shard_epoch(epoch_);
  open.set_max_rows(max_rows);
  return message;
}

v1::A2fMessage FfnSession::Message(const Call& call) const {
  v1::A2fMessage message;
  v1::A2fCall& fields = *message.mutable_call();
  fields.set_step(call.id.step);
  fields.set_layer(call.id.layer);
  fields.set_micro_batch(call.id.micro_batch);
  fields.set_attempt(call.id.attempt);
  fields.set_rows(static_cast<uint32_t>(call.rows.size() / hidden_));
  fields.set_dtype(v1::DATA_TYPE_F32);
  fields.set_data(call.rows.data(), call.rows.size() * sizeof(float));
  fields.set_shard_epoch(epoch_);
  return message;
}

absl::StatusOr<Rows> FfnSession::Reference(uint32_t layer, absl::Span<const float> rows) {
  const auto count = static_cast<uint32_t>(rows.size() / hidden_);
  if (count == 0) return Rows();
  ASSIGN_OR_RETURN(const BufferRef in, reference_.AllocateRows(count));
  ASSIGN_OR_RETURN(const BufferRef out, reference_.AllocateRows(count));
  std::memcpy(in->host(), rows.data(), rows.size() * sizeof(float));
  RETURN_IF_ERROR(reference_.FfnLayer(layer, count, *in, *out)->Wait());
  return Rows(out->host(), out->host() + rows.size());
}

std::string FfnSession::Difference(const Rows& got, const Rows& wanted, size_t at) const {
  return absl::StrCat("row ", at / hidden_, " element ", at % hidden_, ": ", got[at], ", not ",
                      wanted[at]);
}

absl::Status FfnSession::SameBits(const Rows& got, const Rows& wanted, absl::string_view what) {
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (std::bit_cast<uint32_t>(got[i]) == std::bit_cast<uint32_t>(wanted[i])) continue;
    first_difference = Difference(got, wanted, i);
    return Failed(what);
  }
  return absl::OkStatus();
}

absl::StatusOr<double> FfnSession::Distance(const Rows& got, const Rows& wanted,
                                            absl::string_view what) {
  double most = 0;
  for (size_t row = 0; row < wanted.size() / hidden_; ++row) {
    double apart = 0, length = 0;
    size_t furthest = row * hidden_;
    for (size_t i = row * hidden_; i < (row + 1) * hidden_; ++i) {
      const double difference = double{got[i]} - double{wanted[i]};
      apart += difference * difference;
      length += double{wanted[i]} * double{wanted[i]};
      if (std::abs(difference) > std::abs(double{got[furthest]} - double{wanted[furthest]}))
        furthest = i;
    }
    const double distance = length > 0 ? std::sqrt(apart / length) : std::sqrt(apart);
    most = std::max(most, distance);
    if (distance <= options_.tolerance) continue;
    first_difference = Difference(got, wanted, furthest);
    return Failed(absl::StrCat(what, ": a row is ", distance,
                               " of its length from the reference, "
                               "at most ",
                               options_.tolerance, " is taken"));
  }
  return most;
}

OpenStream::OpenStream(FfnSession& session, const std::shared_ptr<grpc::Channel>& channel)
    : session_(session), peer_(channel, session.options().patience) {}

absl::StatusOr<std::unique_ptr<OpenStream>> OpenStream::Make(
    FfnSession& session, uint32_t max_rows, std::shared_ptr<grpc::Channel> channel) {
  if (channel == nullptr) channel = session.channel();
  std::unique_ptr<OpenStream> stream(new OpenStream(session, channel));
  stream->peer_.Send(session.OpenMessage(max_rows));
  const Heard heard = stream->peer_.Await();
  const auto failed = [&](absl::string_view due) {
    return Failed(absl::StrCat(Came(heard, session.options().patience), "; ", due));
  };
  if (!heard.message.has_value() || !heard.message->has_grant() ||
      heard.message->grant().has_error())
    return failed("a grant was due");
  const v1::HandoffGrant& grant = stream->grant_ = heard.message->grant();
  if (grant.max_rows() < 1 || grant.max_rows() > max_rows)
    return failed(absl::StrCat("max_rows ", grant.max_rows(), ", not 1 to ", max_rows));
  const uint64_t least = 2 * session.RowBytes(grant.max_rows());
  if (grant.credit_bytes() < least) {
    return failed(absl::StrCat("credit_bytes ", grant.credit_bytes(),
                               ", at least two of its "
                               "largest calls, ",
                               least, ", are due"));
  }
  if (grant.shard_epoch() != session.epoch())
    return failed(absl::StrCat("shard_epoch ", grant.shard_epoch(), ", not ", session.epoch()));
  if (grant.protocol_version() > kProtocolVersion)
    return failed(absl::StrCat("protocol_version ", grant.protocol_version(), ", asked for 1"));
  return stream;
}

absl::Status OpenStream::SendMessage(const v1::A2fMessage& message) {
  if (peer_.Send(message)) return absl::OkStatus();
  return Failed(
      absl::StrCat(Came(peer_.Await(), session_.options().patience), "; it was to take a message"));
}

absl::StatusOr<std::pair<size_t, Rows>> OpenStream::AwaitReply(absl::Span<const Call> calls,
                                                               std::vector<bool>& answered) {
  const Heard heard = peer_.Await();
  const std::string came = Came(heard, session_.options().patience);
  if (!heard.message.has_value() || !heard.message->has_reply() ||
      heard.message->reply().has_error())
    return Failed(absl::StrCat(came, "; a reply to ", NameOf(calls.front().id), " was due"));
  const v1::F2aReply& reply = heard.message->reply();
  const step::CallId id{.step = reply.step(),
                        .layer = reply.layer(),
                        .micro_batch = reply.micro_batch(),
                        .attempt = reply.attempt()};
  size_t which = 0;
  while (which < calls.size() && calls[which].id != id) which++;
  if (which == calls.size()) return Failed(absl::StrCat(came, "; no such call was made"));
  if (answered[which]) return Failed(absl::StrCat(came, "; it was answered already"));
  answered[which] = true;
  const size_t floats = calls[which].rows.size();
  if (reply.data().size() != floats * sizeof(float))
    return Failed(absl::StrCat(came, "; ", floats * sizeof(float), " bytes were due"));
  Rows rows(floats);
  if (floats > 0) std::memcpy(rows.data(), reply.data().data(), reply.data().size());
  for (size_t i = 0; i < floats; ++i) {
    if (std::isfinite(rows[i])) continue;
    session_.first_difference = absl::StrCat("row ", i / session_.hidden(), " element ",
                                             i % session_.hidden(), ": ", rows[i]);
    return Failed(absl::StrCat(came, "; its data holds a number that is not finite"));
  }
  if (!(reply.queue_seconds() >= 0 && reply.compute_seconds() >= 0 &&
        std::isfinite(reply.queue_seconds() + reply.compute_seconds()))) {
    return Failed(absl::StrCat(came, "; queue_seconds ", reply.queue_seconds(),
                               ", compute_seconds ", reply.compute_seconds()));
  }
  return std::pair(which, std::move(rows));
}

absl::StatusOr<std::vector<Rows>> OpenStream::AskAll(absl::Span<const Call> calls) {
  for (const Call& call : calls) RETURN_IF_ERROR(Send(call));
  std::vector<Rows> rows(calls.size());
  std::vector<bool> answered(calls.size());
  for (size_t i = 0; i < calls.size(); ++i) {
    std::pair<size_t, Rows> reply;
    ASSIGN_OR_RETURN(reply, AwaitReply(calls, answered));
    rows[reply.first] = std::move(reply.second);
  }
  return rows;
}

absl::StatusOr<Rows> OpenStream::Ask(const Call& call) {
  ASSIGN_OR_RETURN(std::vector<Rows> rows, AskAll({&call, 1}));
  return std::move(rows.front());
}

absl::Status OpenStream::AwaitError(const step::CallId& id,
                                    absl::Span<const absl::StatusCode> codes) {
  const Heard heard = peer_.Await();
  const std::string came = Came(heard, session_.options().patience);
  const std::string due =
      absl::StrCat("; an error reply was due, ", absl::StatusCodeToString(codes.front()));
  if (!heard.message.has_value() || !heard.message->has_reply() ||
      !heard.message->reply().has_error())
    return Failed(absl::StrCat(came, due));
  const v1::F2aReply& reply = heard.message->reply();
  if (reply.step() != id.step || reply.layer() != id.layer ||
      reply.micro_batch() != id.micro_batch || reply.attempt() != id.attempt)
    return Failed(absl::StrCat(came, due, " to ", NameOf(id)));
  for (const absl::StatusCode code : codes) {
    if (reply.error().code() != static_cast<int>(code)) continue;
    return reply.data().empty() ? absl::OkStatus()
                                : Failed(absl::StrCat(came, "; with rows beside the error"));
  }
  return Failed(absl::StrCat(came, due));
}

absl::Status OpenStream::Finish() {
  peer_.HalfClose();
  const Heard heard = peer_.Await();
  if (heard.end.has_value() && heard.end->ok()) return absl::OkStatus();
  return Failed(absl::StrCat(Came(heard, session_.options().patience),
                             "; every call was answered and the stream half-closed: its end with "
                             "OK was due"));
}

}  // namespace tandem::conformance
