#pragma once

// What the cases of the FFN suite share: frames that are right, waits that end, and comparisons
// that say where they failed. Statuses are kFailedPrecondition with what came and what was due.

#include <absl/status/status.h>
#include <absl/status/statusor.h>
#include <absl/types/span.h>

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/step/types.h"
#include "workers/conformance/ffn_peer.h"
#include "workers/conformance/ffn_suite.h"

namespace tandem::conformance {

using Rows = std::vector<float>;  // [rows, hidden]

struct Call {
  step::CallId id;
  Rows rows;
};

// One run against one server. Used by one thread.
class FfnSession {
 public:
  FfnSession(const FfnSuiteOptions& options, StageBackend& reference);

  const FfnSuiteOptions& options() const { return options_; }
  uint32_t hidden() const { return hidden_; }
  uint32_t layers() const { return layers_; }
  size_t RowBytes(size_t rows) const { return rows * hidden_ * sizeof(float); }
  // A connection of its own, whose streams take some 64 KiB that nobody reads, however quick the
  // network was before.
  std::shared_ptr<grpc::Channel> NewChannel() const;
  const std::shared_ptr<grpc::Channel>& channel() const { return channel_; }

  // Finds the server's epoch. kUnavailable: nobody answers.
  absl::Status Begin();
  uint64_t epoch() const { return epoch_; }

  // `count` rows of numbers as residuals have them, drawn from `seed`.
  Rows MakeRows(uint64_t seed, uint32_t count) const;
  // A call of a new name.
  Call NewCall(uint32_t layer, Rows rows);
  v1::A2fMessage OpenMessage(uint32_t max_rows) const;
  v1::A2fMessage Message(const Call& call) const;

  // The reference's answer.
  absl::StatusOr<Rows> Reference(uint32_t layer, absl::Span<const float> rows);
  // kFailedPrecondition, and the first difference is noted.
  absl::Status SameBits(const Rows& got, const Rows& wanted, absl::string_view what);
  // The largest distance of a row, over the row's length; likewise when it exceeds the tolerance.
  absl::StatusOr<double> Distance(const Rows& got, const Rows& wanted, absl::string_view what);

  // For the case's result.
  std::string note, first_difference;

 private:
  std::string Difference(const Rows& got, const Rows& wanted, size_t at) const;

  const FfnSuiteOptions& options_;
  StageBackend& reference_;
  const uint32_t hidden_, layers_;
  const std::shared_ptr<grpc::Channel> channel_;
  uint64_t epoch_ = 0;
  uint64_t next_step_ = 1;
};

// A stream that was granted.
class OpenStream {
 public:
  // The grant is checked: credit, rows, epoch, version.
  static absl::StatusOr<std::unique_ptr<OpenStream>> Make(
      FfnSession& session, uint32_t max_rows, std::shared_ptr<grpc::Channel> channel = nullptr);

  FfnPeer& peer() { return peer_; }
  const v1::HandoffGrant& grant() const { return grant_; }

  absl::Status Send(const Call& call) { return SendMessage(session_.Message(call)); }
  absl::Status SendMessage(const v1::A2fMessage& message);
  // The next message is a right reply to one of `calls` (checked but for its values), and not to
  // one that was answered already; which one.
  absl::StatusOr<std::pair<size_t, Rows>> AwaitReply(absl::Span<const Call> calls,
                                                     std::vector<bool>& answered);
  // Sends all, and awaits all: the rows of each, in the order of `calls`.
  absl::StatusOr<std::vector<Rows>> AskAll(absl::Span<const Call> calls);
  absl::StatusOr<Rows> Ask(const Call& call);
  // The next message is an error reply to `id` with one of `codes`.
  absl::Status AwaitError(const step::CallId& id, absl::Span<const absl::StatusCode> codes);
  // Half-closes; the holder then ends the stream with OK, and has nothing more to say.
  absl::Status Finish();

 private:
  OpenStream(FfnSession& session, const std::shared_ptr<grpc::Channel>& channel);

  FfnSession& session_;
  FfnPeer peer_;
  v1::HandoffGrant grant_;
};

absl::Status Failed(absl::string_view what);              // what came, and what was due
std::string Came(const Heard& heard, Duration patience);  // "no reply within 10 s"
std::string NameOf(const step::CallId& id);               // "step 3 layer 1 ..."

// The cases, by what they are about; each returns why it failed.
struct Case {
  const char* name;
  absl::Status (*run)(FfnSession&);
};
absl::Span<const Case> OpenCases();
absl::Span<const Case> CallCases();
absl::Span<const Case> FlowCases();

}  // namespace tandem::conformance
