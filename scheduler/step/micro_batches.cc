#include "scheduler/step/micro_batches.h"

#include <algorithm>

#include "scheduler/base/check.h"

namespace tandem::step {

const char* ToString(MicroBatchState state) {
  switch (state) {
    case MicroBatchState::kReadyForAttention:
      return "kReadyForAttention";
    case MicroBatchState::kComputing:
      return "kComputing";
    case MicroBatchState::kWaitingForFfn:
      return "kWaitingForFfn";
    case MicroBatchState::kReadyForHead:
      return "kReadyForHead";
    case MicroBatchState::kDone:
      return "kDone";
  }
  return "unknown";
}

const char* ToString(MicroBatchEvent event) {
  switch (event) {
    case MicroBatchEvent::kTaskTaken:
      return "kTaskTaken";
    case MicroBatchEvent::kAttentionDone:
      return "kAttentionDone";
    case MicroBatchEvent::kReplyMoreLayers:
      return "kReplyMoreLayers";
    case MicroBatchEvent::kReplyLastLayer:
      return "kReplyLastLayer";
    case MicroBatchEvent::kHeadDone:
      return "kHeadDone";
    case MicroBatchEvent::kFailed:
      return "kFailed";
  }
  return "unknown";
}

bool MicroBatch::in_flight() const {
  return std::any_of(pieces.begin(), pieces.end(),
                     [](const CallPiece& piece) { return piece.in_flight(); });
}

bool MicroBatch::answered() const {
  return !pieces.empty() && std::all_of(pieces.begin(), pieces.end(),
                                        [](const CallPiece& piece) { return piece.answered; });
}

bool MicroBatch::unsent() const {
  const bool missing =
      pieces.empty() || std::any_of(pieces.begin(), pieces.end(),
                                    [](const CallPiece& piece) { return piece.missing(); });
  return state == MicroBatchState::kWaitingForFfn && missing;
}

MicroBatches::MicroBatches(uint32_t layers, uint32_t max_in_flight)
    : layers_(layers), max_in_flight_(max_in_flight) {
  TANDEM_CHECK(layers >= 1 && max_in_flight >= 1);
}

void MicroBatches::Start(uint64_t step, const std::vector<Sequence*>& rows, uint32_t count) {
  TANDEM_CHECK(!running() && count >= 1 && rows.size() >= count);
  step_ = step;
  size_t next = 0;
  for (uint32_t index = 0; index < count; index++) {
    auto batch = std::make_unique<MicroBatch>();
    batch->index = index;
    const size_t end = rows.size() * (index + 1) / count;
    for (; next < end; next++) {
      rows[next]->in_step = true;
      rows[next]->micro_batch = index;
      batch->rows.push_back(rows[next]);
    }
    batches_.push_back(std::move(batch));
  }
  StartMore();
}

void MicroBatches::Clear() {
  TANDEM_CHECK(done());
  batches_.clear();
  ready_.clear();
  unsent_.clear();
  started_ = done_ = 0;
}

MicroBatch* MicroBatches::Find(uint64_t step, uint32_t index) const {
  return running() && step == step_ && index < batches_.size() ? batches_[index].get() : nullptr;
}

// A micro-batch that failed before its turn counts as started, and as done.
void MicroBatches::StartMore() {
  while (started_ < batches_.size() && started_ - done_ < max_in_flight_) {
    const auto next = std::find_if(batches_.begin(), batches_.end(),
                                   [](const auto& batch) { return !batch->started; });
    TANDEM_CHECK(next != batches_.end());
    (*next)->started = true;
    started_++;
    ready_.push_back(next->get());
  }
}

void MicroBatches::Move(MicroBatch& batch, MicroBatchEvent event) {
  batch.state = MustNext(kMicroBatchTransitions, batch.state, event);
  if (batch.state != MicroBatchState::kDone) return;
  if (!batch.started) {
    batch.started = true;
    started_++;
  }
  done_++;
  StartMore();
}

MicroBatch& MicroBatches::TakeReady() {
  MicroBatch& batch = *ready_.front();
  ready_.pop_front();
  Move(batch, MicroBatchEvent::kTaskTaken);
  return batch;
}

void MicroBatches::OnAttentionDone(MicroBatch& batch) {
  Move(batch, MicroBatchEvent::kAttentionDone);
  batch.attempt = 0;
  batch.holders_lost = 0;
  batch.pieces.clear();
  batch.refused_by.clear();
  unsent_.push_back(&batch);
}

void MicroBatches::MarkSent(MicroBatch& batch) {
  TANDEM_CHECK(!batch.unsent() && batch.in_flight());
  std::erase(unsent_, &batch);
}

void MicroBatches::MarkLost(MicroBatch& batch, CallPiece& piece) {
  TANDEM_CHECK(batch.state == MicroBatchState::kWaitingForFfn && piece.in_flight());
  piece.holder.clear();
  batch.attempt++;
  if (std::find(unsent_.begin(), unsent_.end(), &batch) != unsent_.end()) return;
  // It had its turn before those that were never sent.
  auto place = unsent_.begin();
  while (place != unsent_.end() && (*place)->attempt > 0) ++place;
  unsent_.insert(place, &batch);
}

void MicroBatches::OnAnswered(MicroBatch& batch) {
  TANDEM_CHECK(batch.answered());
  batch.pieces.clear();
  const bool last = batch.layer + 1 == layers_;
  Move(batch, last ? MicroBatchEvent::kReplyLastLayer : MicroBatchEvent::kReplyMoreLayers);
  batch.layer++;
  ready_.push_back(&batch);
}

void MicroBatches::OnHeadDone(MicroBatch& batch) { Move(batch, MicroBatchEvent::kHeadDone); }

void MicroBatches::Fail(MicroBatch& batch) {
  std::erase(ready_, &batch);
  std::erase(unsent_, &batch);
  TANDEM_CHECK(!batch.in_flight());
  batch.pieces.clear();
  Move(batch, MicroBatchEvent::kFailed);
}

}  // namespace tandem::step
