#pragma once

// The decode loop of one attention worker: reservations, sequences, the running batch, its
// micro-batches, and the calls to the FFN group. Events in, effects and tasks out; run by
// workers/engine and by scheduler/sim alike.
//
//   machine.Admit(...), OnKvRows(...), OnFfnReply(...), Stop(...)       events, at any time
//   for (auto& effect : machine.TakeEffects()) ...                      what to tell others
//   if (device is free) if (auto task = machine.NextTask(now)) ...      what to compute; one task
//   is out at a time machine.OnAttentionDone / OnHeadDone(...)                           when it is
//   computed

#include <absl/status/status.h>
#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/base/transitions.h"
#include "scheduler/policy/call_times.h"
#include "scheduler/step/kv_book.h"
#include "scheduler/step/types.h"

namespace tandem::step {

struct DecodeConfig {
  uint32_t layers = 0;
  uint32_t context_tokens = 0;      // longest sequence: prompt + output
  uint32_t max_sequences = 256;     // held at once, in any state
  uint32_t max_batch = 64;          // rows of one step
  uint32_t max_micro_batches = 2;   // in flight at once when the FFN is remote; 1 for loopback
  uint32_t micro_batches = 0;       // of a step; 0: what call_times() makes best, within the above
  uint64_t hidden_bytes = 0;        // bytes of one F2A row
  std::vector<TokenId> end_tokens;  // the model's end-of-generation ids
  Duration max_ffn_wait =
      Duration::Seconds(10);  // without an FFN holder: then the step's sequences end kUnavailable
};

// A Decode command: KV reserved for every choice, then decoding once the prompt's KV is there.
struct DecodeRequest {
  ReservationId reservation;
  GatewayId gateway;
  RequestId request;
  std::vector<ChoiceStart> choices;
  std::vector<TokenId> prompt_ids;
  Sampling sampling;
  StopRules stop;
  bool local_prefill = false;
  Duration lease = Duration::Infinite();  // remote prefill: without a KV frame for so long the
                                          // reservation is freed
};

// ---- Effects: what the shell tells others.

// Start a local prefill into `blocks` (PrefillMachine::Enqueue); then OnLocalPrefillDone or
// OnLocalPrefillFailed.
struct StartLocalPrefill {
  ReservationId reservation;
  SequenceKey sequence;                // the first choice's
  std::vector<TokenId> ids;            // prompt and emitted ids
  const BlockTable* blocks = nullptr;  // lives as long as the reservation
};
// A reservation was freed while its prefill ran: remote frames are unknown from now on. Local: call
// PrefillMachine::Cancel, and tell OnLocalPrefillDone or OnLocalPrefillFailed when that job has
// ended: until then its blocks are kept.
struct ReservationFreed {
  ReservationId reservation;
  bool local_prefill = false;
};
// Copy whole KV blocks, all layers, before anything else is done on the device (a task, or KV rows
// written).
struct CopyBlocks {
  std::vector<KvBook::BlockCopy> copies;
};
// Send the rows of a micro-batch (its residual stream, which the shell holds) to an FFN holder. A
// layer cut by columns is one of these a piece.
struct SendA2f {
  CallId call;
  std::string holder;  // FFN worker id
  uint32_t rows = 0;
  uint32_t column = 0, columns = 1;  // which piece of the layer the holder computes
  // The cut in which this layer was computed last for some row, where it was another: the call
  // crosses to another numerics class. Said once a call, with its first piece. 0: it does not.
  uint32_t crosses_from = 0;
};
// What a taken reply is. The layer's FFN output is the sum of its pieces, added in shard order.
struct TakenReply {
  uint32_t column = 0, columns = 1;
  bool last = true;  // of the pieces: the output is complete
};
// The stream of a holder broke or stalled; once a loss, whether or not calls were in flight there.
struct HolderSuspected {
  std::string holder;
  absl::Status status;
};
// Every row of the prompt is in KV: decoding begins.
struct SequencesStarted {
  ReservationId reservation;
  std::vector<SequenceKey> sequences;
};
// New tokens of one sequence, and its end if it ended. One effect per sequence and step; the shell
// sends all of a step in one message per gateway.
struct Emit {
  GatewayId gateway;
  SequenceKey sequence;
  uint32_t position = 0;              // index of the token in the sequence's output
  std::optional<SampledToken> token;  // unset in a message that only ends
  std::optional<SequenceEnd> end;
};
using DecodeEffect = std::variant<StartLocalPrefill, ReservationFreed, CopyBlocks, SendA2f,
                                  HolderSuspected, SequencesStarted, Emit>;

// ---- Tasks: what the device computes.

// One layer's attention over a micro-batch: embeds at layer 0, else first adds the F2A rows of the
// layer before.
struct AttentionTask {
  uint64_t step = 0;
  uint32_t micro_batch = 0;
  uint32_t layer = 0;
  std::vector<KvRow> rows;
};
// Adds the last layer's F2A rows, then final norm, output matrix and sampling of each row.
struct HeadTask {
  uint64_t step = 0;
  uint32_t micro_batch = 0;
  std::vector<SampleRow> rows;
};
using DecodeTask = std::variant<AttentionTask, HeadTask>;

// Life of a sequence on its attention worker; ARCHITECTURE.md has the tables. A running sequence
// that has a row in the running step ends when that step does.
enum class SequenceState { kReserved, kRunning, kEnded };
enum class SequenceEventKind {
  kKvComplete,
  kLastToken,
  kStop,
  kPreempt,
  kSupersede,
  kRelease,
  kLeaseExpired,
  kFailed
};
inline constexpr Transition<SequenceState, SequenceEventKind> kSequenceTransitions[] = {
    {SequenceState::kReserved, SequenceEventKind::kKvComplete, SequenceState::kRunning},
    {SequenceState::kReserved, SequenceEventKind::kStop, SequenceState::kEnded},
    {SequenceState::kReserved, SequenceEventKind::kPreempt, SequenceState::kEnded},
    {SequenceState::kReserved, SequenceEventKind::kSupersede, SequenceState::kEnded},
    {SequenceState::kReserved, SequenceEventKind::kRelease, SequenceState::kEnded},
    {SequenceState::kReserved, SequenceEventKind::kLeaseExpired, SequenceState::kEnded},
    {SequenceState::kReserved, SequenceEventKind::kFailed, SequenceState::kEnded},
    {SequenceState::kRunning, SequenceEventKind::kLastToken, SequenceState::kEnded},
    {SequenceState::kRunning, SequenceEventKind::kStop, SequenceState::kEnded},
    {SequenceState::kRunning, SequenceEventKind::kPreempt, SequenceState::kEnded},
    {SequenceState::kRunning, SequenceEventKind::kSupersede, SequenceState::kEnded},
    {SequenceState::kRunning, SequenceEventKind::kRelease, SequenceState::kEnded},
    {SequenceState::kRunning, SequenceEventKind::kFailed, SequenceState::kEnded},
};

// Life of a micro-batch within one step.
enum class MicroBatchState { kReadyForAttention, kComputing, kWaitingForFfn, kReadyForHead, kDone };
enum class MicroBatchEvent {
  kTaskTaken,
  kAttentionDone,
  kReplyMoreLayers,
  kReplyLastLayer,
  kHeadDone,
  kFailed
};
inline constexpr Transition<MicroBatchState, MicroBatchEvent> kMicroBatchTransitions[] = {
    {MicroBatchState::kReadyForAttention, MicroBatchEvent::kTaskTaken, MicroBatchState::kComputing},
    {MicroBatchState::kReadyForAttention, MicroBatchEvent::kFailed, MicroBatchState::kDone},
    {MicroBatchState::kComputing, MicroBatchEvent::kAttentionDone, MicroBatchState::kWaitingForFfn},
    {MicroBatchState::kComputing, MicroBatchEvent::kHeadDone, MicroBatchState::kDone},
    {MicroBatchState::kComputing, MicroBatchEvent::kFailed, MicroBatchState::kDone},
    {MicroBatchState::kWaitingForFfn, MicroBatchEvent::kReplyMoreLayers,
     MicroBatchState::kReadyForAttention},
    {MicroBatchState::kWaitingForFfn, MicroBatchEvent::kReplyLastLayer,
     MicroBatchState::kReadyForHead},
    {MicroBatchState::kWaitingForFfn, MicroBatchEvent::kFailed, MicroBatchState::kDone},
    {MicroBatchState::kReadyForHead, MicroBatchEvent::kTaskTaken, MicroBatchState::kComputing},
    {MicroBatchState::kReadyForHead, MicroBatchEvent::kFailed, MicroBatchState::kDone},
};

// "kReserved", "kStop": the words of ARCHITECTURE.md's tables.
const char* ToString(SequenceState state);
const char* ToString(SequenceEventKind event);
const char* ToString(MicroBatchState state);
const char* ToString(MicroBatchEvent event);

// Not thread-safe; lives on the device's thread. Deterministic: equal calls give equal effects and
// tasks.
class DecodeMachine {
 public:
  // `book` is the KV of this device; it outlives the machine. A loopback FFN is one holder with
  // unlimited credit.
  DecodeMachine(const DecodeConfig& config, KvBook& book);
  ~DecodeMachine();

  // Reserves KV for prompt, emitted ids and one block a choice, and ends lower attempts of the same
  // choices (kSuperseded), also when there is no room for the new one. Several choices only while
  // none has emitted. kResourceExhausted: no room now; kInvalidArgument: it can never fit;
  // kAlreadyExists: that attempt is here; kFailedPrecondition: a higher attempt is here.
  absl::Status Admit(DecodeRequest request, Instant now);

  // Remote prefill: room for the rows of one layer; the shell writes them to `blocks` and then
  // calls OnKvRows. kNotFound: no such reservation, or it is prefilled (drop the frame and count
  // it); kInvalidArgument: out of its range, or a gap after the rows that are there.
  absl::StatusOr<const BlockTable*> KvDestination(const ReservationId& reservation,
                                                  uint32_t attempt, uint32_t layer,
                                                  uint32_t first_position, uint32_t count) const;
  // Rows were written. Returns how many positions of the layer are complete: the acknowledgement.
  uint32_t OnKvRows(const ReservationId& reservation, uint32_t layer, uint32_t first_position,
                    uint32_t count, Instant now);
  void OnLocalPrefillDone(const ReservationId& reservation, Instant now);
  void OnLocalPrefillFailed(const ReservationId& reservation, const absl::Status& status,
                            Instant now);
  // Ends what is held for it, whatever the state. `reason` kCancelled or kSuperseded. Sequences
  // that had not started may come again under the same attempt: the router places them anew when no
  // prefill worker is left. Unknown: ignored.
  void Release(const ReservationId& reservation, EndReason reason, Instant now);

  // The gateway's word: output tokens from index `position` on are not wanted; `reason` kStopped or
  // kCancelled. Ends at once, or with the running step if it has a row there. Unknown: ignored.
  void Stop(const SequenceKey& sequence, uint32_t position, EndReason reason, Instant now);
  // Ends every sequence of a gateway (its lease ran out, or it fell behind: `reason`, `status`).
  void EndAllOf(const GatewayId& gateway, const SequenceEnd& end, Instant now);
  void EndAll(const SequenceEnd& end, Instant now);

  // The group's holders, best first: of each piece of a layer the first that is up gets the call. A
  // call in flight stays where it is. Empty: wait for one.
  void SetGroup(std::vector<GroupHolder> holders, Instant now);
  // The holder's stream is open: it takes calls of up to max_rows and this much reply in flight.
  void OnHolderUp(const std::string& holder, uint64_t credit_bytes, uint32_t max_rows, Instant now);
  // Its stream broke or stalled: what was in flight there is sent once to each further holder of
  // the same part, attempt + 1. Where none is left, but another cut of the layer is complete, the
  // whole layer call goes there.
  void OnHolderLost(const std::string& holder, const absl::Status& status, Instant now);
  // The holder answered a call with an error and lives on (a stale shard, a full queue): as if it
  // had died on this call, but its stream stays open. False: as OnFfnReply. Take the holder down
  // (OnHolderLost) when it should get no more calls.
  bool OnFfnRefused(const std::string& holder, const CallId& call, const absl::Status& status,
                    Instant now);
  // A reply came; `shared`: it was computed with another attention worker's rows, or waited behind
  // them. nullopt: it matches nothing that is awaited (drop it and count it).
  std::optional<TakenReply> OnFfnReply(const std::string& holder, const CallId& call, bool shared,
                                       Instant now);

  // The longest-ready micro-batch's task; starts a step when none runs. May also have effects
  // (kPreempted ends).
  std::optional<DecodeTask> NextTask(Instant now);
  bool HasTask() const;  // NextTask would give one at the time of the last event
  void OnAttentionDone(const AttentionTask& task, Instant now);
  void OnHeadDone(const HeadTask& task, std::vector<SampledToken> tokens, Instant now);
  void OnTaskFailed(const DecodeTask& task, const absl::Status& status, Instant now);

  // What calls took, by the clock of the device: the shell adds them as they end. From them the
  // next steps' micro-batches are chosen.
  policy::CallTimes& call_times();

  // Leases, max_ffn_wait, and a step that is held back (policy/stagger.h): call OnTime when it is
  // due.
  Instant NextDeadline() const;
  void OnTime(Instant now);

  std::vector<DecodeEffect> TakeEffects();

  uint32_t sequences() const;             // held, in any state
  uint32_t waiting() const;               // of those, whose prompt is not complete
  uint64_t abandoned_blocks() const;      // KV that comes free when a local prefill has ended
  std::vector<SequenceKey> live() const;  // ascending
  uint64_t tokens_total() const;
  // Prompts that got their first output token here, and their tokens: each prompt once, however
  // many choices and attempts it has.
  uint64_t prompts_total() const;
  uint64_t prompt_tokens_total() const;
  uint64_t tokens_wasted() const;  // computed after a Stop
  bool in_step() const;            // some micro-batch of a step is not done
  bool waits_for_ffn() const;      // a micro-batch waits and no task is ready: the device stalls

 private:
  struct State;  // decode_state.h; its parts: sequence_table, reservations, micro_batches,
                 // ffn_holders
  std::unique_ptr<State> state_;
};

}  // namespace tandem::step
