#pragma once

// What each sequence cost: a prompt's prefill, and its share of every step that it was a row of.

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "workers/connector/ports.h"

namespace tandem {

// One step's device time, here and at the FFN holders. A call's time is shared by its rows alike;
// an FFN call that merged rows of others counts by its own rows of the merged ones.
class StepCost {
 public:
  void Start(uint64_t step);  // does nothing while that step runs
  void AddMicroBatch(uint32_t rows);
  void AddCall(Duration time) { seconds_ += time.seconds(), calls_++; }
  void AddFfnCall(const std::string& holder, Duration merged_compute, uint32_t rows,
                  uint32_t merged_rows);
  // One row's share, by stage.
  std::vector<StageTime> Share(const std::string& own_worker) const;

 private:
  struct Ffn {
    double seconds = 0;
    uint32_t calls = 0;
  };
  uint64_t step_ = 0;
  uint32_t rows_ = 0, micro_batches_ = 0;
  double seconds_ = 0;
  uint32_t calls_ = 0;
  std::map<std::string, Ffn> ffn_;
};

class SequenceCosts {
 public:
  void Charge(const SequenceKey& sequence, const StageTime& time);
  void ChargeKvTransfer(const SequenceKey& sequence, double seconds) {
    costs_[sequence].kv_transfer_seconds += seconds;
  }
  // A token of it came at `now`; the time since the one before. nullopt: it is the first here.
  std::optional<Duration> NoteToken(const SequenceKey& sequence, Instant now);
  // The sequence has ended: its bill, forgotten here.
  SequenceCost Take(const SequenceKey& sequence);

 private:
  std::map<SequenceKey, SequenceCost> costs_;
  std::map<SequenceKey, Instant> last_token_;
};

}  // namespace tandem
