#pragma once

// The inside of DecodeMachine: its parts, and the moves that several events share.
// decode_machine.cc has the events, decode_sequences.cc the life of sequences, decode_step.cc the
// running step, decode_calls.cc its calls to the FFN group.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "scheduler/policy/stagger.h"
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
        holders(decode_config.layers, decode_config.hidden_bytes),
        batches(decode_config.layers, decode_config.max_micro_batches) {}

  const DecodeConfig config;
  KvBook& book;
  SequenceTable sequences;
  Reservations reservations;
  FfnHolders holders;
  MicroBatches batches;
  policy::CallTimes call_times;
  std::vector<DecodeEffect> effects;

  uint64_t step = 0;  // of the last step started
  bool task_out = false;
  size_t running = 0;  // sequences in kRunning
  Instant blocked_since =
      Instant::Never();  // nobody takes some call that is there to send; Never(): all can go
  std::optional<uint32_t>
      kv_blocked_at;  // no row of a step had its KV when so many blocks were free
  // Of the running step, for policy/stagger.h.
  struct Pace {
    Instant since;
    uint32_t calls = 0, shared = 0;
    uint64_t steps_since_delay = policy::kStaggerSteps;
    Instant held = Instant::Never();  // the next step starts then; Never(): it is not held back
  };
  Pace pace;
  uint64_t tokens_total = 0, tokens_wasted = 0;
  uint64_t prompts_total = 0, prompt_tokens_total = 0;

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
  bool StartStep(Instant now);
  uint32_t MicroBatchesOf(uint32_t rows) const;
  std::vector<Sequence*> RowsWithKv();
  bool GrowOrPreempt(Sequence& sequence);  // false: no row for it in this step, it may even be gone
  void FinishStep(Instant now);
  void HoldBack(Instant now);  // the next step, if this one was in phase with another worker's
  void FinishRow(Sequence& sequence);
  void CountToken(const Sequence& sequence);  // that is about to get one
  std::optional<EndReason> EndAfter(
      const Sequence& sequence) const;  // its last token was just added
  DecodeTask TaskOf(const MicroBatch& batch) const;

  // ---- decode_calls.cc
  void SendCalls();
  // By piece whom the call, or what is missing of it, goes to, and whether that begins it anew in
  // another cut; no holders: nobody takes it now.
  struct Target {
    std::vector<std::string> holders;  // parallel to the missing pieces
    bool whole_call = true;
  };
  Target ChooseTarget(const MicroBatch& batch) const;
  bool IsBlocked(const MicroBatch& batch) const;  // nobody takes it now
  void BeginCall(MicroBatch& batch, uint32_t columns);
  void SendPieces(MicroBatch& batch, const Target& target);
  void AbandonPieces(MicroBatch& batch);  // what is in flight is of no use any more
  uint32_t CrossesFrom(MicroBatch& batch);
  void LoseCall(MicroBatch& batch, CallPiece& piece, const absl::Status& status);
  void FailRows(MicroBatch& batch, const absl::Status& status);
  // Nobody wants its rows any more and nothing is under way for it.
  void FailIfAbandoned(MicroBatch& batch);
  // Of the call that is named; null: nothing like it is awaited from there.
  std::pair<MicroBatch*, CallPiece*> Awaited(const std::string& holder, const CallId& call) const;
  // After every event: ends the step if it is done, sends what can be sent, notes whether an FFN
  // holder is missed.
  void Settle(Instant now);
  Instant FfnDeadline() const;
  void EndBlocked(Instant now);
};

}  // namespace tandem::step
