#pragma once

// How the micro-batches of one step overlap attention and FFN. Source: DESIGN section 6, checked
// there by discrete-event simulation to 0.4 %.

#include <cstdint>

#include "scheduler/base/time.h"

namespace tandem::cost {

// Of one layer and one micro-batch.
struct CycleTimes {
  Duration attention, ffn;      // t_a, t_f: compute
  Duration a2f, f2a;            // send to arrival, t_c = t_a2f + t_f2a
  Duration a2f_link, f2a_link;  // s: what one call occupies a link for
};

// Time between two layer calls of the step: max(t_a, t_f, (t_a + t_f + t_c)/K, s_a2f, s_f2a). Sends
// are asynchronous.
//   micro_batches  K, >= 1
Duration CycleTime(const CycleTimes& times, uint32_t micro_batches);
// The first call's whole way: t_a + t_f + t_c.
Duration FillTime(const CycleTimes& times);
// fill + t_cycle·(K·layers - 1) + extra; `extra` is embedding, head and sampling.
Duration StepTime(const CycleTimes& times, uint32_t micro_batches, uint32_t layers, Duration extra);

}  // namespace tandem::cost
