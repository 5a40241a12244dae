// What one call is answered with: shapes, values, bits, errors.

#include <absl/strings/str_cat.h>

#include <algorithm>
#include <functional>

#include "scheduler/base/status.h"
#include "workers/conformance/ffn_session.h"

namespace tandem::conformance {
namespace {

constexpr uint32_t kMaxRows = 256;  // that the suite asks for

uint32_t LastLayer(const FfnSession& session) { return session.layers() - 1; }

// A call of `rows` rows in a stream that takes so many, and its answer against the reference.
absl::Status OfRows(FfnSession& session, uint32_t rows) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  rows = std::min(rows, stream->grant().max_rows());
  const Call call = session.NewCall(LastLayer(session), session.MakeRows(rows, rows));
  ASSIGN_OR_RETURN(const Rows got, stream->Ask(call));
  ASSIGN_OR_RETURN(const Rows wanted, session.Reference(call.id.layer, call.rows));
  RETURN_IF_ERROR(
      session.Distance(got, wanted, absl::StrCat("a call of ", rows, " rows")).status());
  session.note = absl::StrCat(rows, " rows");
  return stream->Finish();
}

absl::Status OneRow(FfnSession& session) { return OfRows(session, 1); }
absl::Status ZeroRows(FfnSession& session) { return OfRows(session, 0); }
absl::Status Largest(FfnSession& session) { return OfRows(session, kMaxRows); }

// Calls of many sizes on their way at once, of several layers.
absl::Status Ragged(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  std::vector<Call> calls;
  uint32_t total = 0;
  for (const uint32_t rows : {3u, 1u, 0u, 7u, 2u, 13u, 5u, 1u}) {
    if (total + rows > stream->grant().max_rows()) break;
    total += rows;
    calls.push_back(session.NewCall(static_cast<uint32_t>(calls.size()) % session.layers(),
                                    session.MakeRows(100 + calls.size(), rows)));
  }
  ASSIGN_OR_RETURN(const std::vector<Rows> got, stream->AskAll(calls));
  for (size_t i = 0; i < calls.size(); ++i) {
    ASSIGN_OR_RETURN(const Rows wanted, session.Reference(calls[i].id.layer, calls[i].rows));
    RETURN_IF_ERROR(session.Distance(got[i], wanted, NameOf(calls[i].id)).status());
  }
  session.note = absl::StrCat(calls.size(), " calls at once");
  return stream->Finish();
}

// Segments change nothing.
absl::Status Segments(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  const uint32_t count = std::min(6u, stream->grant().max_rows());
  const Call plain = session.NewCall(0, session.MakeRows(5, count));
  ASSIGN_OR_RETURN(const Rows wanted, stream->Ask(plain));
  const Call gathered = session.NewCall(0, plain.rows);
  v1::A2fMessage message = session.Message(gathered);
  for (const uint32_t rows : {1u, 0u, count - 1}) message.mutable_call()->add_segments(rows);
  RETURN_IF_ERROR(stream->SendMessage(message));
  std::vector<bool> answered(1);
  std::pair<size_t, Rows> reply;
  ASSIGN_OR_RETURN(reply, stream->AwaitReply({&gathered, 1}, answered));
  return session.SameBits(reply.second, wanted, "the same rows in segments have other bits");
}

// The name of a call comes back as it was, whatever its numbers.
absl::Status Name(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  Call call = session.NewCall(LastLayer(session), session.MakeRows(2, 1));
  call.id = {.step = ~uint64_t{0},
             .layer = LastLayer(session),
             .micro_batch = 0xffffffff,
             .attempt = 0x80000001};
  return stream->Ask(call).status();
}

// Every layer, against the reference.
absl::Status Precision(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  double most = 0;
  bool same = true;
  for (uint32_t layer = 0; layer < session.layers(); ++layer) {
    const Call call =
        session.NewCall(layer, session.MakeRows(layer, std::min(4u, stream->grant().max_rows())));
    ASSIGN_OR_RETURN(const Rows got, stream->Ask(call));
    ASSIGN_OR_RETURN(const Rows wanted, session.Reference(layer, call.rows));
    ASSIGN_OR_RETURN(const double distance,
                     session.Distance(got, wanted, absl::StrCat("layer ", layer)));
    most = std::max(most, distance);
    same = same && session.SameBits(got, wanted, "").ok();
  }
  session.note = same ? absl::StrCat(session.layers(), " layers, bit by bit the reference's")
                      : absl::StrCat(session.layers(), " layers, a class of its own: at most ",
                                     most, " of a row's length from the reference");
  if (!same) absl::StrAppend(&session.note, "; first: ", session.first_difference);
  session.first_difference.clear();
  return absl::OkStatus();
}

// Rows of nothing but zeros, and rows far larger than a model's.
absl::Status Extremes(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  Rows zeros(session.hidden(), 0.0f), large = session.MakeRows(9, 1);
  for (float& value : large) value *= 1e5f;
  RETURN_IF_ERROR(stream->Ask(session.NewCall(0, std::move(zeros))).status());
  const Call call = session.NewCall(0, std::move(large));
  ASSIGN_OR_RETURN(const Rows got, stream->Ask(call));
  ASSIGN_OR_RETURN(const Rows wanted, session.Reference(0, call.rows));
  return session.Distance(got, wanted, "rows of 1e5 times a model's").status();
}

Rows RowOf(const FfnSession& session, const Rows& rows, size_t row) {
  return Rows(rows.begin() + static_cast<ptrdiff_t>(row * session.hidden()),
              rows.begin() + static_cast<ptrdiff_t>((row + 1) * session.hidden()));
}

// A row has the same bits alone as in a batch, at its every place.
absl::Status Alone(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  const uint32_t most = std::min(33u, stream->grant().max_rows());
  for (const uint32_t count : {2u, 3u, 7u, 8u, 16u, most}) {
    if (count > most) continue;
    const Call batch = session.NewCall(0, session.MakeRows(count, count));
    ASSIGN_OR_RETURN(const Rows together, stream->Ask(batch));
    for (uint32_t row = 0; row < count; row += std::max(1u, count / 4)) {
      ASSIGN_OR_RETURN(const Rows alone,
                       stream->Ask(session.NewCall(0, RowOf(session, batch.rows, row))));
      RETURN_IF_ERROR(
          session.SameBits(RowOf(session, together, row), alone,
                           absl::StrCat("row ", row, " of ", count, " has other bits than alone")));
    }
  }
  return absl::OkStatus();
}

// The rows in another order are answered in that order, with the same bits.
absl::Status Order(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  const uint32_t count = std::min(12u, stream->grant().max_rows());
  const Call call = session.NewCall(LastLayer(session), session.MakeRows(4, count));
  Rows reversed;
  for (uint32_t row = count; row-- > 0;) {
    const Rows one = RowOf(session, call.rows, row);
    reversed.insert(reversed.end(), one.begin(), one.end());
  }
  ASSIGN_OR_RETURN(const Rows forth, stream->Ask(call));
  ASSIGN_OR_RETURN(const Rows back,
                   stream->Ask(session.NewCall(LastLayer(session), std::move(reversed))));
  for (uint32_t row = 0; row < count; ++row) {
    RETURN_IF_ERROR(session.SameBits(RowOf(session, back, count - 1 - row),
                                     RowOf(session, forth, row),
                                     absl::StrCat("row ", row, " of reversed rows")));
  }
  return absl::OkStatus();
}

// A call that is wrong in one way is answered with an error; the stream goes on.
absl::Status Refused(FfnSession& session, absl::StatusCode code,
                     const std::function<void(v1::A2fCall&)>& spoil) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  v1::A2fMessage message = session.Message(session.NewCall(0, session.MakeRows(6, 1)));
  spoil(*message.mutable_call());
  const v1::A2fCall& call = message.call();
  const step::CallId id{.step = call.step(),
                        .layer = call.layer(),
                        .micro_batch = call.micro_batch(),
                        .attempt = call.attempt()};
  RETURN_IF_ERROR(stream->SendMessage(message));
  RETURN_IF_ERROR(stream->AwaitError(id, {code}));
  const absl::Status after = stream->Ask(session.NewCall(0, session.MakeRows(7, 1))).status();
  return after.ok() ? after : Failed(absl::StrCat("after the error: ", after.message()));
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;

absl::Status NoSuchLayer(FfnSession& session) {
  return Refused(session, kInvalid, [&](v1::A2fCall& c) { c.set_layer(session.layers()); });
}
absl::Status TooManyRows(FfnSession& session) {
  return Refused(session, kInvalid, [&](v1::A2fCall& c) {
    c.set_rows(kMaxRows + 1);
    c.set_data(std::string(session.RowBytes(kMaxRows + 1), '\0'));
  });
}
absl::Status UnknownDataType(FfnSession& session) {
  return Refused(session, kInvalid,
                 [](v1::A2fCall& c) { c.set_dtype(static_cast<v1::DataType>(77)); });
}
absl::Status ShortData(FfnSession& session) {
  return Refused(session, kInvalid, [](v1::A2fCall& c) { c.mutable_data()->pop_back(); });
}
absl::Status LongData(FfnSession& session) {
  return Refused(session, kInvalid, [](v1::A2fCall& c) { c.mutable_data()->append(4, '\0'); });
}
absl::Status WrongSegments(FfnSession& session) {
  return Refused(session, kInvalid, [](v1::A2fCall& c) { c.add_segments(2); });
}
absl::Status Scales(FfnSession& session) {
  return Refused(session, kInvalid, [](v1::A2fCall& c) { c.set_scales("1234"); });
}
absl::Status Routed(FfnSession& session) {
  return Refused(session, absl::StatusCode::kUnimplemented, [](v1::A2fCall& c) {
    c.mutable_routing()->set_slots(1);
    c.mutable_routing()->add_expert_ids(0);
    c.mutable_routing()->add_weights(1);
  });
}
absl::Status StaleCall(FfnSession& session) {
  return Refused(session, absl::StatusCode::kFailedPrecondition,
                 [](v1::A2fCall& c) { c.set_shard_epoch(~c.shard_epoch()); });
}

// Fields of a later writer are skipped.
absl::Status UnknownFields(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  const Call plain = session.NewCall(0, session.MakeRows(8, 2));
  ASSIGN_OR_RETURN(const Rows wanted, stream->Ask(plain));
  const Call newer = session.NewCall(0, plain.rows);
  v1::A2fMessage message = session.Message(newer);
  for (google::protobuf::Message* const part :
       {static_cast<google::protobuf::Message*>(&message),
        static_cast<google::protobuf::Message*>(message.mutable_call())}) {
    google::protobuf::UnknownFieldSet* const unknown =
        part->GetReflection()->MutableUnknownFields(part);
    unknown->AddVarint(19, ~uint64_t{0});
    unknown->AddLengthDelimited(500, "a word of tomorrow");
    unknown->AddFixed64(501, 1);
  }
  RETURN_IF_ERROR(stream->SendMessage(message));
  std::vector<bool> answered(1);
  std::pair<size_t, Rows> reply;
  ASSIGN_OR_RETURN(reply, stream->AwaitReply({&newer, 1}, answered));
  return session.SameBits(reply.second, wanted, "unknown fields changed the answer");
}

constexpr Case kCases[] = {
    {"shape/one_row", OneRow},
    {"shape/zero_rows", ZeroRows},
    {"shape/largest", Largest},
    {"shape/ragged", Ragged},
    {"shape/segments", Segments},
    {"call/name", Name},
    {"call/unknown_fields", UnknownFields},
    {"values/precision", Precision},
    {"values/extremes", Extremes},
    {"batch/alone", Alone},
    {"batch/order", Order},
    {"error/layer", NoSuchLayer},
    {"error/rows_past_grant", TooManyRows},
    {"error/data_type", UnknownDataType},
    {"error/short_data", ShortData},
    {"error/long_data", LongData},
    {"error/segments", WrongSegments},
    {"error/scales", Scales},
    {"error/routing", Routed},
    {"error/stale_epoch", StaleCall},
};

}  // namespace

absl::Span<const Case> CallCases() { return kCases; }

}  // namespace tandem::conformance
