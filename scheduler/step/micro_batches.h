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

// A slice of a step's rows.
struct MicroBatch {
  uint32_t index = 0;
  MicroBatchState state = MicroBatchState::kReadyForAttention;
  bool started = false;         // false: waits for its turn, max_in_flight others are on their way
  std::vector<Sequence*> rows;  // ascending admission
  uint32_t layer = 0;           // of its next task; the number of layers: the head
  uint32_t attempt = 0;         // of the layer's call
  uint32_t holders_lost = 0;    // that died on the layer's call
  std::string holder;           // where the call is; empty: not sent
  std::string refused_by;       // a live holder that will not have the call; empty: none

  uint32_t row_count() const { return static_cast<uint32_t>(rows.size()); }
  bool sent() const { return !holder.empty(); }
  bool unsent() const { return state == MicroBatchState::kWaitingForFfn && holder.empty(); }
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
  MicroBatch* FirstUnsent() const;          // longest waiting; null: none
  void MarkSent(MicroBatch& batch, std::string holder);
  // The call's holder was lost: it is to be sent again, before calls that wait since later.
  void MarkLost(MicroBatch& batch);
  void OnReply(MicroBatch& batch);
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
