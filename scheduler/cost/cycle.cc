#include "scheduler/cost/cycle.h"

#include <algorithm>

namespace tandem::cost {

Duration CycleTime(const CycleTimes& times, uint32_t micro_batches) {
  return std::max({times.attention, times.ffn, FillTime(times) / micro_batches, times.a2f_link,
                   times.f2a_link});
}

Duration FillTime(const CycleTimes& times) {
  return times.attention + times.ffn + times.a2f + times.f2a;
}

Duration StepTime(const CycleTimes& times, uint32_t micro_batches, uint32_t layers,
                  Duration extra) {
  return FillTime(times) + CycleTime(times, micro_batches) * (int64_t{micro_batches} * layers - 1) +
         extra;
}

}  // namespace tandem::cost
