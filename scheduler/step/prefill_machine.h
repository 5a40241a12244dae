#pragma once

// Prompts being prefilled on one device: chunks, layer by layer, and the transfer of their KV to an
// attention worker.

#include <absl/status/status.h>

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <variant>
#include <vector>

#include "scheduler/base/transitions.h"
#include "scheduler/step/kv_book.h"
#include "scheduler/step/types.h"

namespace tandem::step {

struct PrefillConfig {
  uint32_t layers = 0;
  uint32_t chunk_tokens = 32;             // rows of one chunk; under 64 in the exact class
  uint32_t max_jobs = 64;                 // prompts in hand; one more is refused
  uint64_t kv_row_bytes = 0;              // K and V of one position and layer
  uint64_t send_window_bytes = 8u << 20;  // bytes pushed and not yet acknowledged, per job
};

// A prompt to prefill. Positions 0 to ids.size()-2 are computed: the last id is the attention
// worker's first step.
struct PrefillJob {
  ReservationId reservation;
  SequenceKey sequence;
  std::vector<TokenId> ids;  // at least two
  // Local prefill (colocated, afd): the reservation's own blocks, borrowed until the job ends.
  // Remote: null, and the machine takes blocks of its own from its KvBook.
  const BlockTable* local_blocks = nullptr;
};

// One layer of one chunk. The device embeds at layer 0, then runs attention and FFN of the layer
// over all rows.
struct PrefillTask {
  ReservationId reservation;
  SequenceKey sequence;
  uint32_t layer = 0;
  uint32_t first_position = 0;
  std::vector<KvRow> rows;  // one sequence, ascending positions
};

// Rows to push: positions [first_position, first_position + count) of one layer.
struct PushKv {
  ReservationId reservation;
  SequenceKey sequence;
  uint32_t layer = 0;
  uint32_t first_position = 0;
  uint32_t count = 0;
  const BlockTable* blocks = nullptr;  // valid until the machine is called again
};
// Every row is in the attention worker's KV (remote: acknowledged).
struct PrefillDone {
  ReservationId reservation;
  SequenceKey sequence;
};
// The job ended without: the device failed, or the peer did. Local: also kCancelled after Cancel,
// once no task can touch the borrowed blocks any more; the shell tells
// DecodeMachine::OnLocalPrefillFailed in every case.
struct PrefillFailed {
  ReservationId reservation;
  SequenceKey sequence;
  absl::Status status;
};
// Tell the attention worker that nothing more will be written.
struct CancelPush {
  ReservationId reservation;
  SequenceKey sequence;
};
using PrefillEffect = std::variant<PushKv, PrefillDone, PrefillFailed, CancelPush>;

// Life of a job; ARCHITECTURE.md has the table.
enum class PrefillState { kQueued, kComputing, kDraining, kDone };
enum class PrefillEvent {
  kFirstChunk,
  kLastLayer,
  kAllAcknowledged,
  kCancelled,
  kPeerLost,
  kRefused,
  kTaskFailed
};

// kLastLayer: the last layer of the last chunk. kRefused: A's answer; kPeerLost: the stream to A
// broke.
inline constexpr Transition<PrefillState, PrefillEvent> kPrefillTransitions[] = {
    {PrefillState::kQueued, PrefillEvent::kFirstChunk, PrefillState::kComputing},
    {PrefillState::kQueued, PrefillEvent::kCancelled, PrefillState::kDone},
    {PrefillState::kQueued, PrefillEvent::kPeerLost, PrefillState::kDone},
    {PrefillState::kQueued, PrefillEvent::kRefused, PrefillState::kDone},
    {PrefillState::kComputing, PrefillEvent::kLastLayer, PrefillState::kDraining},
    {PrefillState::kComputing, PrefillEvent::kCancelled, PrefillState::kDone},
    {PrefillState::kComputing, PrefillEvent::kPeerLost, PrefillState::kDone},
    {PrefillState::kComputing, PrefillEvent::kRefused, PrefillState::kDone},
    {PrefillState::kComputing, PrefillEvent::kTaskFailed, PrefillState::kDone},
    {PrefillState::kDraining, PrefillEvent::kAllAcknowledged, PrefillState::kDone},
    {PrefillState::kDraining, PrefillEvent::kCancelled, PrefillState::kDone},
    {PrefillState::kDraining, PrefillEvent::kPeerLost, PrefillState::kDone},
    {PrefillState::kDraining, PrefillEvent::kRefused, PrefillState::kDone},
};

// "kQueued", "kFirstChunk": the words of ARCHITECTURE.md's table.
const char* ToString(PrefillState state);
const char* ToString(PrefillEvent event);

// Not thread-safe; lives on the device's thread. First come, first served; chunks of one job are
// never reordered. Computing never waits for acknowledgements: the window holds back pushes only,
// since the blocks are held until the job ends.
class PrefillMachine {
 public:
  // `book` is the KV of this device; it outlives the machine.
  PrefillMachine(const PrefillConfig& config, KvBook& book);

  // kResourceExhausted: max_jobs, or no KV for a remote job; kInvalidArgument: fewer than two ids;
  // kAlreadyExists.
  absl::Status Enqueue(PrefillJob job);
  // What the device may compute next, or nothing. Only one task is out at a time.
  std::optional<PrefillTask> NextTask();
  bool HasWork() const;  // NextTask would give a task
  void OnTaskDone(const PrefillTask& task);
  void OnTaskFailed(const PrefillTask& task, const absl::Status& status);
  // A has rows 0 to positions-1 of the layer. Unknown jobs are ignored.
  void OnAck(const ReservationId& reservation, uint32_t layer, uint32_t positions);
  // A refused the transfer, or its connection broke (kUnavailable): PrefillFailed.
  void OnPeerFailed(const ReservationId& reservation, const absl::Status& status);
  // Release: the job ends with CancelPush (remote) or PrefillFailed kCancelled (local) as its last
  // effect. While its task is out it ends with the task. Unknown: ignored.
  void Cancel(const ReservationId& reservation);

  std::vector<PrefillEffect> TakeEffects();
  uint32_t jobs() const { return static_cast<uint32_t>(jobs_.size()); }
  uint32_t queued() const;  // of those, whose first chunk is not computed

 private:
  struct Job;  // prefill_machine.cc
  std::shared_ptr<Job> Find(const ReservationId& reservation) const;
  void PushRows(Job& job);
  void FinishIfAcknowledged(const std::shared_ptr<Job>& job);
  // Ends a job before its time; `last` is its last effect.
  void EndEarly(const std::shared_ptr<Job>& job, PrefillEvent event, PrefillEffect last);
  void Drop(const std::shared_ptr<Job>& job);

  PrefillConfig config_;
  KvBook& book_;
  std::deque<std::shared_ptr<Job>> jobs_;  // arrival order
  std::shared_ptr<Job> running_;           // whose task is out
  std::vector<PrefillEffect> effects_;
};

}  // namespace tandem::step
