#pragma once

// The micro-batches of one step: each goes through the layers by itself, one layer call
// outstanding.

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/step/decode_machine.h"
#include "scheduler/step/sequence_table.h"

namespace tandem::step {

// One holder's part of a micro-batch's layer call: all of it, or one piece of a cut of columns.
struct CallPiece {
  std::string holder;    // where it is; empty: not sent, lost, or answered
  uint32_t attempt = 0;  // under which it was sent
  bool answered = false;

  bool in_flight() const { return !holder.empty(); }
  bool missing() const { return holder.empty() && !answered; }
};

// A slice of a step's rows.
struct MicroBatch {
  uint32_t index = 0;
  MicroBatchState state = MicroBatchState::kReadyForAttention;
  bool started = false;         // false: waits for its turn, max_in_flight others are on their way
  std::vector<Sequence*> rows;  // ascending admission
  uint32_t layer = 0;           // of its next task; the number of layers: the head
  uint32_t attempt = 0;         // of the layer's call: of what is sent next
  uint32_t holders_lost = 0;    // that died on the layer's call
  std::vector<CallPiece> pieces;  // of the layer's call, in shard order; empty: never sent
  std::string refused_by;         // a live holder that will not have the call; empty: none

  uint32_t row_count() const { return static_cast<uint32_t>(rows.size()); }
  bool in_flight() const;  // some piece is
  bool answered() const;   // every piece is
  bool unsent() const;     // its call, or a piece of it, is to be sent
};

// Both queues are served in order of arrival: lowest index first would starve the last micro-batch
// (PROTOCOL section 6).
class MicroBatches {
 public:
  MicroBatches(uint32_t layers, uint32_t max_in_flight);

  // Cuts `rows` (at least `count`) into `count` even slices. The step before is done.
  void Start(uint64_t step, const std::vector<Sequence*>& rows, uint32_t count);
  bool running() const { return !batches_.empty(); }
  bool done() const { return done_ == batches_.size(); }  // every one; true when none runs
  void Clear();                                           // done; none runs after it

  uint64_t step() const { return step_; }
  const std::vector<std::unique_ptr<MicroBatch>>& all() const { return batches_; }
  MicroBatch* Find(uint64_t step, uint32_t index) const;  // null: not of the running step

  bool HasReady() const { return !ready_.empty(); }
  MicroBatch& TakeReady();                  // the longest ready; its state is kComputing then
  void OnAttentionDone(MicroBatch& batch);  // its call is to be sent
  const std::deque<MicroBatch*>& unsent() const { return unsent_; }  // longest waiting first
  void MarkSent(MicroBatch& batch);  // every piece is answered or in flight
  // A piece's holder was lost: it is to be sent again, before calls that wait since later.
  void MarkLost(MicroBatch& batch, CallPiece& piece);
  void OnAnswered(MicroBatch& batch);  // every piece
  void OnHeadDone(MicroBatch& batch);
  void Fail(MicroBatch& batch);  // whatever it waited for

 private:
  void Move(MicroBatch& batch, MicroBatchEvent event);
  void StartMore();

  uint32_t layers_, max_in_flight_;
  uint64_t step_ = 0;
  std::vector<std::unique_ptr<MicroBatch>> batches_;
  std::deque<MicroBatch*> ready_, unsent_;  // in order of arrival
  size_t started_ = 0, done_ = 0;
};

}  // namespace tandem::step
