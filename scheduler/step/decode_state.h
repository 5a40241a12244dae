#pragma once

// The inside of DecodeMachine: its parts, and the moves that several events share.
// decode_machine.cc has the events, decode_sequences.cc the life of sequences, decode_step.cc the
// running step.

#include <optional>
#include <vector>

#include "scheduler/step/decode_machine.h"
#include "scheduler/step/ffn_holders.h"
#include "scheduler/step/micro_batches.h"
#include "scheduler/step/reservations.h"
#include "scheduler/step/sequence_table.h"

namespace tandem::step {

struct DecodeMachine::State {
  State(const DecodeConfig& decode_config, KvBook& kv_book)
      : config(decode_config),
        book(kv_book),
        reservations(decode_config.layers, decode_config.context_tokens, kv_book),
        holders(decode_config.hidden_bytes),
        batches(decode_config.layers, decode_config.max_micro_batches) {}

  const DecodeConfig config;
  KvBook& book;
  SequenceTable sequences;
  Reservations reservations;
  FfnHolders holders;
  MicroBatches batches;
  std::vector<DecodeEffect> effects;

  uint64_t step = 0;  // of the last step started
  bool task_out = false;
  size_t running = 0;  // sequences in kRunning
  Instant blocked_since =
      Instant::Never();  // no FFN holder takes what is there to send; Never(): one does
  std::optional<uint32_t>
      kv_blocked_at;  // no row of a step had its KV when so many blocks were free
  uint64_t tokens_total = 0, tokens_wasted = 0;

  // ---- decode_sequences.cc
  absl::Status CheckRequest(const DecodeRequest& request) const;
  absl::Status Admit(DecodeRequest request, Instant now);
  void StartSequences(Reservation& reservation, Instant now);
  // The sequences of one Decode command, by ascending admission.
  std::vector<Sequence*> Choices(const ReservationId& reservation) const;
  // Ends the sequence now, or with the running step if it has a row there. Output tokens from
  // `keep_tokens` on are dropped.
  void End(Sequence& sequence, SequenceEventKind event, SequenceEnd end, uint32_t keep_tokens = 0);
  void EndEach(const std::vector<SequenceKey>& keys, SequenceEventKind event,
               const SequenceEnd& end);
  void FailChoices(const ReservationId& reservation, SequenceEventKind event,
                   const absl::Status& status);
  // Says the end, with the last token if there is one, frees the KV and forgets the sequence.
  void Finish(Sequence& sequence, SequenceEventKind event, SequenceEnd end,
              std::optional<SampledToken> token);

  // ---- decode_step.cc
  bool CanStartStep() const;
  bool StartStep();
  std::vector<Sequence*> RowsWithKv();
  bool GrowOrPreempt(Sequence& sequence);  // false: no row for it in this step, it may even be gone
  void FinishStep();
  void FinishRow(Sequence& sequence);
  std::optional<EndReason> EndAfter(
      const Sequence& sequence) const;  // its last token was just added
  DecodeTask TaskOf(const MicroBatch& batch) const;
  void SendCalls();
  void LoseCall(MicroBatch& batch, const absl::Status& status);
  void FailRows(MicroBatch& batch, const absl::Status& status);
  // Nobody wants its rows any more and nothing is under way for it.
  void FailIfAbandoned(MicroBatch& batch);
  MicroBatch* Awaited(const std::string& holder, const CallId& call) const;
  // After every event: ends the step if it is done, sends what can be sent, notes whether an FFN
  // holder is missed.
  void Settle(Instant now);
  Instant FfnDeadline() const;
  void EndBlocked(Instant now);
};

}  // namespace tandem::step
