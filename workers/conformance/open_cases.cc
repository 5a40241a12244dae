// How a stream begins: what is granted, and what is refused.

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include <functional>

#include "scheduler/base/status.h"
#include "workers/conformance/ffn_session.h"

namespace tandem::conformance {
namespace {

constexpr uint32_t kRows = 16;

// Opens with a message that `spoil` spoiled; the refusal.
absl::StatusOr<v1::HandoffGrant> Refusal(FfnSession& session, absl::StatusCode code,
                                         const std::function<void(v1::HandoffOpen&)>& spoil) {
  FfnPeer peer(session.channel(), session.options().patience);
  v1::A2fMessage message = session.OpenMessage(kRows);
  spoil(*message.mutable_open());
  peer.Send(message);
  const Heard heard = peer.Await();
  const bool refused = heard.message.has_value() && heard.message->grant().has_error() &&
                       heard.message->grant().error().code() == static_cast<int>(code);
  if (refused) return heard.message->grant();
  return Failed(absl::StrCat(Came(heard, session.options().patience), "; a refusal was due, ",
                             absl::StatusCodeToString(code)));
}

absl::Status Granted(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kRows));
  session.note = absl::StrCat("largest call ", stream->grant().max_rows(), " rows, credit ",
                              stream->grant().credit_bytes(), " B");
  return absl::OkStatus();
}

absl::Status WrongVersion(FfnSession& session) {
  ASSIGN_OR_RETURN(const v1::HandoffGrant refusal,
                   Refusal(session, absl::StatusCode::kInvalidArgument,
                           [](v1::HandoffOpen& open) { open.set_protocol_version(999); }));
  if (refusal.protocol_version() == 1) return absl::OkStatus();
  return Failed(absl::StrCat("the refusal of version 999 says protocol_version ",
                             refusal.protocol_version(), "; the highest it speaks was due, 1"));
}

absl::Status WrongModel(FfnSession& session) {
  return Refusal(session, absl::StatusCode::kFailedPrecondition,
                 [](v1::HandoffOpen& open) { open.set_model("no such model"); })
      .status();
}

absl::Status WrongShape(FfnSession& session) {
  RETURN_IF_ERROR(
      Refusal(session, absl::StatusCode::kFailedPrecondition, [](v1::HandoffOpen& open) {
        open.set_hidden(open.hidden() + 32);
      }).status());
  return Refusal(session, absl::StatusCode::kFailedPrecondition,
                 [](v1::HandoffOpen& open) { open.set_layers(open.layers() + 1); })
      .status();
}

absl::Status WrongClass(FfnSession& session) {
  return Refusal(session, absl::StatusCode::kFailedPrecondition,
                 [](v1::HandoffOpen& open) { open.set_ffn_class("gguf:0/nobody's/whole"); })
      .status();
}

absl::Status StaleEpoch(FfnSession& session) {
  ASSIGN_OR_RETURN(
      const v1::HandoffGrant refusal,
      Refusal(session, absl::StatusCode::kFailedPrecondition,
              [](v1::HandoffOpen& open) { open.set_shard_epoch(~open.shard_epoch()); }));
  if (!absl::StartsWith(refusal.error().message(), "STALE_SHARD"))
    return Failed(absl::StrCat("'", refusal.error().message(), "'; STALE_SHARD was due"));
  if (refusal.shard_epoch() == session.epoch()) return absl::OkStatus();
  return Failed(absl::StrCat("STALE_SHARD with shard_epoch ", refusal.shard_epoch(),
                             "; the current one was due, ", session.epoch()));
}

absl::Status NoRows(FfnSession& session) {
  return Refusal(session, absl::StatusCode::kInvalidArgument,
                 [](v1::HandoffOpen& open) { open.set_max_rows(0); })
      .status();
}

absl::Status EndsInvalid(FfnSession& session, FfnPeer& peer, absl::string_view why) {
  const Heard heard = peer.Await();
  if (heard.end.has_value() && heard.end->error_code() == grpc::StatusCode::INVALID_ARGUMENT)
    return absl::OkStatus();
  return Failed(absl::StrCat(Came(heard, session.options().patience), "; after ", why,
                             " the stream's end with INVALID_ARGUMENT was due"));
}

absl::Status CallFirst(FfnSession& session) {
  FfnPeer peer(session.channel(), session.options().patience);
  peer.Send(session.Message(session.NewCall(0, session.MakeRows(1, 1))));
  return EndsInvalid(session, peer, "a call before the open");
}

absl::Status OpenedTwice(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kRows));
  RETURN_IF_ERROR(stream->SendMessage(session.OpenMessage(kRows)));
  return EndsInvalid(session, stream->peer(), "a second open");
}

absl::Status NoAlternative(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kRows));
  RETURN_IF_ERROR(stream->SendMessage(v1::A2fMessage()));
  return EndsInvalid(session, stream->peer(), "a message without open, call or live");
}

constexpr Case kCases[] = {
    {"open/granted", Granted},          {"open/wrong_version", WrongVersion},
    {"open/wrong_model", WrongModel},   {"open/wrong_shape", WrongShape},
    {"open/wrong_class", WrongClass},   {"open/stale_epoch", StaleEpoch},
    {"open/no_rows", NoRows},           {"order/call_before_open", CallFirst},
    {"order/second_open", OpenedTwice}, {"order/empty_message", NoAlternative},
};

}  // namespace

absl::Span<const Case> OpenCases() { return kCases; }

}  // namespace tandem::conformance
