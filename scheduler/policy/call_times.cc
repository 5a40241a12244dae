#include "scheduler/policy/call_times.h"

#include <algorithm>
#include <bit>
#include <iterator>

#include "scheduler/base/check.h"

namespace tandem::policy {
namespace {

constexpr double kSampleWeight = 0.25;  // of the newest step

// Sizes that are told apart: four binary digits, at most an eighth off.
uint32_t SizeOf(uint32_t rows) {
  const int dropped = std::max(0, static_cast<int>(std::bit_width(rows)) - 4);
  return rows >> dropped << dropped;
}

}  // namespace

void TimeByRows::Add(uint32_t rows, Duration took) {
  Sum& sum = step_[SizeOf(rows)];
  sum.seconds += took.seconds();
  sum.calls++;
}

void TimeByRows::EndStep(uint64_t step) {
  for (const auto& [rows, sum] : step_) {
    const double sample = sum.seconds / sum.calls;
    const auto [mean, added] = means_.try_emplace(rows, Mean{sample, step});
    if (!added) mean->second.seconds += (sample - mean->second.seconds) * kSampleWeight;
    mean->second.step = step;
  }
  step_.clear();
  std::erase_if(means_,
                [step](const auto& entry) { return step - entry.second.step > kForgetSteps; });
}

Duration TimeByRows::At(uint32_t rows) const {
  TANDEM_CHECK(!means_.empty());
  const uint32_t size = SizeOf(rows);
  const auto above = means_.lower_bound(size);
  if (above == means_.end()) return Duration::FromSeconds(std::prev(above)->second.seconds);
  const double seconds = above->second.seconds;
  if (above->first == size) return Duration::FromSeconds(seconds);
  if (above == means_.begin()) return Duration::FromSeconds(seconds * size / above->first);
  const auto below = std::prev(above);
  const double part = static_cast<double>(size - below->first) / (above->first - below->first);
  return Duration::FromSeconds(below->second.seconds + (seconds - below->second.seconds) * part);
}

void CallTimes::AddFfn(uint32_t rows, Duration compute, Duration transfer) {
  ffn_.Add(rows, compute);
  transfer_.Add(rows, std::max(transfer, Duration()));
}

void CallTimes::EndStep() {
  steps_++;
  for (TimeByRows* kind : {&attention_, &ffn_, &transfer_, &head_}) kind->EndStep(steps_);
}

std::optional<Duration> CallTimes::Step(uint32_t rows, uint32_t micro_batches,
                                        uint32_t layers) const {
  if (attention_.empty() || ffn_.empty() || head_.empty()) return std::nullopt;
  const uint32_t size = (rows - 1) / micro_batches + 1;
  cost::CycleTimes times;
  times.attention = attention_.At(size);
  times.ffn = ffn_.At(size);
  times.a2f = transfer_.At(size);  // both ways
  return cost::StepTime(times, micro_batches, layers, head_.At(size) * int64_t{micro_batches});
}

}  // namespace tandem::policy
