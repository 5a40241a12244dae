#pragma once

// KV that waits for its prompt: what a Decode command holds until every row of the prompt is there.

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/step/decode_machine.h"
#include "scheduler/step/kv_book.h"

namespace tandem::step {

// One table takes the prompt's rows; each further choice holds spare blocks for what it will not
// share.
struct Reservation {
  std::shared_ptr<const DecodeRequest> request;
  uint32_t prompt_rows =
      0;  // positions that the prefill fills: prompt and emitted ids but the last
  uint64_t reserved_tokens = 0;  // positions that a choice's table covers when it starts
  BlockTable blocks;
  std::vector<BlockTable> spares;    // one a choice but the first
  std::vector<uint32_t> layer_rows;  // [layers] positions complete
  Instant lease_end = Instant::Never();
  bool prefill_started = false;  // a local prefill writes to `blocks`
  bool prefill_failed = false;   // and has ended
};

class Reservations {
 public:
  Reservations(uint32_t layers, uint32_t context_tokens, KvBook& book);

  // Whether it could ever fit an empty worker: kInvalidArgument names the numbers.
  absl::Status CheckFits(const DecodeRequest& request) const;
  // All or nothing; kResourceExhausted.
  absl::StatusOr<Reservation*> Reserve(std::shared_ptr<const DecodeRequest> request, Instant now);
  Reservation* Find(const ReservationId& id);  // null: none, or prefilled, or freed
  const Reservation* Find(const ReservationId& id) const;
  bool Holds(const ReservationId& id) const;  // also when freed and still written to

  absl::StatusOr<const BlockTable*> Destination(const ReservationId& id, uint32_t attempt,
                                                uint32_t layer, uint32_t first_position,
                                                uint32_t count) const;
  // Books rows that were written and renews the lease. Returns the complete positions of the layer.
  uint32_t OnRows(Reservation& reservation, uint32_t layer, uint32_t first_position, uint32_t count,
                  Instant now);
  bool IsComplete(const Reservation& reservation) const;

  // The prompt is there: the tables of `choices` sequences, in order, and the blocks to copy. The
  // reservation is gone.
  std::vector<BlockTable> Split(Reservation& reservation, size_t choices,
                                std::vector<KvBook::BlockCopy>& copies);
  // One choice of several has ended.
  void DropSpare(Reservation& reservation);
  // No choice is left. While a local prefill may still write, the blocks are kept until
  // FreeAbandoned.
  void Free(Reservation& reservation);
  // The local prefill of a freed reservation has ended. False: there is none.
  bool FreeAbandoned(const ReservationId& id);
  uint64_t abandoned_blocks() const;  // that will come free by themselves
  uint32_t waiting() const;           // sequences whose prompt is not complete

  Instant NextDeadline() const;                           // of a lease
  std::vector<ReservationId> Expired(Instant now) const;  // ascending

 private:
  uint64_t ReservedTokens(const DecodeRequest& request) const;
  uint32_t PromptRows(const DecodeRequest& request) const;
  uint64_t BlocksNeeded(const DecodeRequest& request) const;

  uint32_t layers_, context_tokens_;
  KvBook& book_;
  std::map<ReservationId, std::unique_ptr<Reservation>> open_, abandoned_;
};

}  // namespace tandem::step
