#pragma once

// An FFN server that keeps docs/handoff.md but for one planted fault: what a conformance suite must
// catch, and an attention worker must survive. Written against the proto alone; it shares nothing
// with workers/rpc.

#include <grpcpp/server_context.h>
#include <grpcpp/support/sync_stream.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "services/runtime/mutex.h"
#include "tandem/v1/handoff.grpc.pb.h"
#include "workers/backend/stage_backend.h"

namespace tandem::test {

enum class Fault {
  kNone,
  // Of a reply.
  kShort,           // a row less
  kLong,            // four bytes more
  kNan,             // one number of it
  kLate,            // five seconds after it was due
  kSilent,          // none
  kNever,           // to one call in three
  kTwice,           // each reply
  kWrongName,       // of another step
  kForgetsAttempt,  // says attempt 0
  // Of its values.
  kSwappedRows,     // first and last row change places
  kResidualAdded,   // which is the sender's to add
  kNextLayer,       // computes with another layer's weights
  kBatchDependent,  // the number of rows shows in the values
  kPositionDependent,
  kNotIdempotent,  // so does the number of calls before
  kImprecise,      // a tenth off
  // Of what it checks.
  kIgnoresVersion,
  kIgnoresModel,
  kIgnoresShape,
  kIgnoresClass,
  kIgnoresEpoch,
  kIgnoresEpochOfCalls,
  kIgnoresDataType,
  kIgnoresLayer,
  kIgnoresRouting,
  kIgnoresSegments,
  kTakesAnything,  // no call and no order of messages is refused
  kErrorEndsStream,
  kErrorWithoutName,
  kStaleWithoutEpoch,  // does not say the current one
  // Of flow.
  kSmallCredit,     // one of the largest calls
  kLeaksCredit,     // of a cancelled stream
  kOneAtATime,      // serves nobody while a peer does not read
  kSilentZeroRows,  // no reply to a call of none
  kRefusesOlderAttempts,
  kStopsAtUnknownFields,
};

// `backend` holds the FFN of every layer and outlives this. Epoch 7.
class PlantedHolder final : public v1::Handoff::Service {
 public:
  PlantedHolder(StageBackend& backend, std::string model, Fault fault)
      : backend_(backend), model_(std::move(model)), fault_(fault) {}

  static constexpr uint64_t kEpoch = 7;
  static constexpr uint32_t kMaxRows = 256;
  static constexpr uint64_t kMaxCreditStreams = 64;  // of the largest calls

  grpc::Status Exchange(grpc::ServerContext* context,
                        grpc::ServerReaderWriter<v1::F2aMessage, v1::A2fMessage>* stream) override;

  uint64_t calls() TANDEM_EXCLUDES(mu_);  // answered, in any way

 private:
  class Peer;
  v1::F2aMessage Grant(const v1::HandoffOpen& open) TANDEM_EXCLUDES(mu_);
  absl::Status CheckOpen(const v1::HandoffOpen& open) const;
  absl::Status CheckCall(const v1::A2fCall& call, uint32_t max_rows) const;
  // The messages that answer a call; the fault decides how many.
  std::vector<v1::F2aMessage> Answer(const v1::A2fCall& call, const absl::Status& checked)
      TANDEM_EXCLUDES(mu_);
  std::string Compute(const v1::A2fCall& call) TANDEM_REQUIRES(mu_);
  bool Is(Fault fault) const { return fault_ == fault; }

  StageBackend& backend_;
  const std::string model_;
  const Fault fault_;
  Mutex serving_;  // kOneAtATime holds it over a reply's writing
  Mutex mu_;
  uint64_t granted_streams_ TANDEM_GUARDED_BY(mu_) = 0;
  uint64_t calls_ TANDEM_GUARDED_BY(mu_) = 0;
};

}  // namespace tandem::test
