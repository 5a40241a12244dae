#include "workers/engine/sequence_costs.h"

#include <algorithm>
#include <utility>

namespace tandem {

void StepCost::Start(uint64_t step) {
  if (step == step_) return;
  *this = StepCost();
  step_ = step;
}

void StepCost::AddMicroBatch(uint32_t rows) {
  rows_ += rows;
  micro_batches_++;
}

void StepCost::AddFfnCall(const std::string& holder, Duration merged_compute, uint32_t rows,
                          uint32_t merged_rows) {
  Ffn& ffn = ffn_[holder];
  ffn.seconds += merged_compute.seconds() * rows / std::max({merged_rows, rows, 1u});
  ffn.calls++;
}

std::vector<StageTime> StepCost::Share(const std::string& own_worker) const {
  if (rows_ == 0) return {};
  std::vector<StageTime> share{
      {Stage::kAttention, own_worker, seconds_ / rows_, calls_ / micro_batches_}};
  for (const auto& [holder, ffn] : ffn_) {
    share.push_back({Stage::kFfn, holder, ffn.seconds / rows_, ffn.calls / micro_batches_});
  }
  return share;
}

void SequenceCosts::Charge(const SequenceKey& sequence, const StageTime& time) {
  std::vector<StageTime>& times = costs_[sequence].times;
  const auto same = std::find_if(times.begin(), times.end(), [&](const StageTime& other) {
    return other.stage == time.stage && other.worker == time.worker;
  });
  if (same == times.end()) {
    times.push_back(time);
    return;
  }
  same->seconds += time.seconds;
  same->calls += time.calls;
}

std::optional<Duration> SequenceCosts::NoteToken(const SequenceKey& sequence, Instant now) {
  const auto [last, first_here] = last_token_.try_emplace(sequence, now);
  if (first_here) return std::nullopt;
  return now - std::exchange(last->second, now);
}

SequenceCost SequenceCosts::Take(const SequenceKey& sequence) {
  last_token_.erase(sequence);
  const auto found = costs_.find(sequence);
  if (found == costs_.end()) return {};
  SequenceCost cost = std::move(found->second);
  costs_.erase(found);
  return cost;
}

}  // namespace tandem
