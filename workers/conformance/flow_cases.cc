// What holds over many calls and streams: idempotence, exactly one reply, credit, cancellation.

#include <absl/strings/match.h>
#include <absl/strings/str_cat.h>

#include <algorithm>
#include <chrono>

#include "scheduler/base/status.h"
#include "services/runtime/mutex.h"
#include "services/runtime/real_time.h"
#include "workers/conformance/ffn_session.h"

namespace tandem::conformance {
namespace {

constexpr uint32_t kMaxRows = 256;
// More streams than a server can have room for that does not give a cancelled one's credit back:
// at SmolLM2's width 227 of the largest streams fill the 256 MiB of Tandem's own.
constexpr int kCancelledStreams = 300;

// The same call again after its reply, and on another stream.
absl::Status Again(FfnSession& session) {
  const Call call = session.NewCall(0, session.MakeRows(11, 3));
  ASSIGN_OR_RETURN(const auto first, OpenStream::Make(session, kMaxRows));
  ASSIGN_OR_RETURN(const Rows wanted, first->Ask(call));
  ASSIGN_OR_RETURN(const Rows again, first->Ask(call));
  RETURN_IF_ERROR(session.SameBits(again, wanted, "the same call again has other bits"));
  ASSIGN_OR_RETURN(const auto second, OpenStream::Make(session, kMaxRows));
  ASSIGN_OR_RETURN(const Rows elsewhere, second->Ask(call));
  RETURN_IF_ERROR(
      session.SameBits(elsewhere, wanted, "the same call on another stream has other bits"));
  return first->Finish();
}

// A lower attempt, step and layer after higher ones are answered like any other.
absl::Status StaleAttempt(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  Call call = session.NewCall(session.layers() - 1, session.MakeRows(12, 2));
  call.id.attempt = 5;
  ASSIGN_OR_RETURN(const Rows wanted, stream->Ask(call));
  call.id.attempt = 1;
  ASSIGN_OR_RETURN(const Rows older, stream->Ask(call));
  RETURN_IF_ERROR(session.SameBits(older, wanted, "a lower attempt has other bits"));
  call.id.step = 0;
  ASSIGN_OR_RETURN(const Rows earlier, stream->Ask(call));
  return session.SameBits(earlier, wanted, "a lower step has other bits");
}

// One call sent twice before its reply: two answers, of which one may be an error, and no third.
absl::Status Duplicate(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  const Call call = session.NewCall(0, session.MakeRows(13, 4));
  RETURN_IF_ERROR(stream->Send(call));
  RETURN_IF_ERROR(stream->Send(call));
  int rows = 0;
  for (int i = 0; i < 2; ++i) {
    const Heard heard = stream->peer().Await();
    const bool is_reply = heard.message.has_value() && heard.message->has_reply();
    const bool refused = is_reply && heard.message->reply().has_error() &&
                         heard.message->reply().error().code() ==
                             static_cast<int>(absl::StatusCode::kInvalidArgument);
    if (is_reply && !heard.message->reply().has_error()) rows++;
    if (!is_reply || (heard.message->reply().has_error() && !refused)) {
      return Failed(absl::StrCat(Came(heard, session.options().patience),
                                 "; a reply or INVALID_ARGUMENT was due"));
    }
  }
  if (rows == 0) return Failed("both of two equal calls were refused; one answer was due");
  return stream->Finish();
}

// As many replies as calls, and then the stream's end.
absl::Status Once(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  constexpr int kCalls = 8;
  std::vector<Call> calls;
  calls.reserve(kCalls);
  for (int i = 0; i < kCalls; ++i) calls.push_back(session.NewCall(0, session.MakeRows(20 + i, 1)));
  RETURN_IF_ERROR(stream->AskAll(calls).status());
  return stream->Finish();
}

absl::Status Live(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  for (const bool live : {true, false, true}) {
    v1::A2fMessage message;
    message.mutable_live()->set_live(live);
    RETURN_IF_ERROR(stream->SendMessage(message));
    RETURN_IF_ERROR(stream->Ask(session.NewCall(0, session.MakeRows(14, 1))).status());
  }
  return stream->Finish();
}

// Two senders' calls of one layer at the same time have the bits that they have alone.
absl::Status TwoSenders(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto a, OpenStream::Make(session, kMaxRows, session.NewChannel()));
  ASSIGN_OR_RETURN(const auto b, OpenStream::Make(session, kMaxRows, session.NewChannel()));
  for (int round = 0; round < 8; ++round) {
    const Call ours = session.NewCall(0, session.MakeRows(30 + round, 3));
    const Call theirs = session.NewCall(0, session.MakeRows(60 + round, 5));
    RETURN_IF_ERROR(a->Send(ours));
    RETURN_IF_ERROR(b->Send(theirs));
    std::vector<bool> a_answered(1), b_answered(1);
    std::pair<size_t, Rows> merged, other;
    ASSIGN_OR_RETURN(merged, a->AwaitReply({&ours, 1}, a_answered));
    ASSIGN_OR_RETURN(other, b->AwaitReply({&theirs, 1}, b_answered));
    ASSIGN_OR_RETURN(const Rows alone, a->Ask(ours));
    RETURN_IF_ERROR(
        session.SameBits(merged.second, alone, "beside another sender's rows: other bits"));
  }
  return absl::OkStatus();
}

// Far more than the credit at once: each call is answered, with rows or RESOURCE_EXHAUSTED.
absl::Status CreditExceeded(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
  const uint32_t rows = stream->grant().max_rows();
  constexpr int kCalls = 12;
  const Rows data = session.MakeRows(15, rows);
  for (int i = 0; i < kCalls; ++i) RETURN_IF_ERROR(stream->Send(session.NewCall(0, data)));
  int refused = 0;
  for (int i = 0; i < kCalls; ++i) {
    const Heard heard = stream->peer().Await();
    const bool is_reply = heard.message.has_value() && heard.message->has_reply();
    const bool exhausted = is_reply && heard.message->reply().error().code() ==
                                           static_cast<int>(absl::StatusCode::kResourceExhausted);
    if (exhausted) refused++;
    if (!is_reply || (heard.message->reply().has_error() && !exhausted)) {
      return Failed(absl::StrCat(Came(heard, session.options().patience), "; call ", i + 1, " of ",
                                 kCalls, " past the credit: rows or RESOURCE_EXHAUSTED were due"));
    }
  }
  session.note = absl::StrCat(refused, " of ", kCalls, " largest calls refused");
  return stream->Finish();
}

// Asks `other` again and again for `span`, at least four times.
absl::Status KeepsServing(FfnSession& session, OpenStream& other, Duration span) {
  RealTimeSource time;
  const Instant end = time.Now() + span;
  for (int i = 0; i < 4 || time.Now() < end; ++i)
    RETURN_IF_ERROR(other.Ask(session.NewCall(0, session.MakeRows(50 + i, 1))).status());
  return absl::OkStatus();
}

// A peer that stops reading holds nobody else up, and gets its replies when it reads again.
absl::Status StoppedReader(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto stopped, OpenStream::Make(session, kMaxRows, session.NewChannel()));
  ASSIGN_OR_RETURN(const auto other, OpenStream::Make(session, kMaxRows, session.NewChannel()));
  const uint32_t rows = stopped->grant().max_rows();
  const uint64_t fit = stopped->grant().credit_bytes() / session.RowBytes(rows);
  const size_t outstanding = std::min<uint64_t>(fit, 8);
  std::vector<Call> calls;
  calls.reserve(outstanding);
  for (size_t i = 0; i < outstanding; ++i)
    calls.push_back(session.NewCall(0, session.MakeRows(40 + i, rows)));
  std::vector<bool> answered(calls.size());
  // The first reply says that the server is at these calls; the rest stay unread.
  stopped->peer().StopReadingAfter(1);
  for (const Call& call : calls) RETURN_IF_ERROR(stopped->Send(call));
  RETURN_IF_ERROR(stopped->AwaitReply(calls, answered).status());
  // No message tells when the server has come to the next one, so that this takes some time.
  const absl::Status served = KeepsServing(session, *other, Duration::Milliseconds(200));
  if (!served.ok())
    return Failed(absl::StrCat("while another peer does not read: ", served.message()));
  stopped->peer().ReadOn();
  for (size_t i = 1; i < calls.size(); ++i)
    RETURN_IF_ERROR(stopped->AwaitReply(calls, answered).status());
  return stopped->Finish();
}

// A cancelled stream's calls hold nobody up.
absl::Status Cancelled(FfnSession& session) {
  ASSIGN_OR_RETURN(const auto other, OpenStream::Make(session, kMaxRows, session.NewChannel()));
  {
    ASSIGN_OR_RETURN(const auto stream, OpenStream::Make(session, kMaxRows));
    const Rows data = session.MakeRows(16, stream->grant().max_rows());
    for (int i = 0; i < 2; ++i) RETURN_IF_ERROR(stream->Send(session.NewCall(0, data)));
  }  // cancels it
  return other->Ask(session.NewCall(0, session.MakeRows(17, 1))).status();
}

// A cancel needs its time to arrive, so a server that is full is asked again for as long as an
// answer may take.
absl::StatusOr<std::unique_ptr<OpenStream>> OpenOnceThereIsRoom(FfnSession& session) {
  constexpr Duration kPause = Duration::Milliseconds(20);
  Mutex mu;
  CondVar never;
  for (Duration waited;; waited = waited + kPause) {
    absl::StatusOr<std::unique_ptr<OpenStream>> stream = OpenStream::Make(session, kMaxRows);
    const bool full =
        !stream.ok() && absl::StrContains(stream.status().message(), "RESOURCE_EXHAUSTED");
    if (!full || waited >= session.options().patience) return stream;
    MutexLock lock(mu);
    never.WaitFor(lock, std::chrono::nanoseconds(kPause.nanoseconds()));
  }
}

absl::Status CreditComesBack(FfnSession& session) {
  for (int i = 0; i < kCancelledStreams; ++i) {
    const absl::StatusOr<std::unique_ptr<OpenStream>> stream = OpenOnceThereIsRoom(session);
    if (!stream.ok())
      return Failed(absl::StrCat("after ", i, " cancelled streams: ", stream.status().message()));
    RETURN_IF_ERROR((*stream)->Send(session.NewCall(0, session.MakeRows(18, 1))));
  }
  session.note = absl::StrCat(kCancelledStreams, " streams, each cancelled with a call on its way");
  return absl::OkStatus();
}

constexpr Case kCases[] = {
    {"idempotence/again", Again},
    {"idempotence/stale_attempt", StaleAttempt},
    {"idempotence/duplicate", Duplicate},
    {"reply/once", Once},
    {"live/told", Live},
    {"batch/two_senders", TwoSenders},
    {"credit/exceeded", CreditExceeded},
    {"credit/stopped_reader", StoppedReader},
    {"cancel/others_served", Cancelled},
    {"cancel/credit_comes_back", CreditComesBack},
};

}  // namespace

absl::Span<const Case> FlowCases() { return kCases; }

}  // namespace tandem::conformance
