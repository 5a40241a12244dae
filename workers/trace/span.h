#pragma once

// What a device did, for how long: one span of its trace.

#include <cstdint>
#include <limits>

#include "scheduler/base/time.h"
#include "scheduler/ledger/ledger.h"

namespace tandem {

enum class SpanKind : uint8_t {
  kStep,       // attention: a decode step, from its first task to its last one's end
  kPrefill,    // one layer of one chunk; `step` counts the device's chunks
  kEmbed,      // attention: token embeddings of a micro-batch
  kAttention,  // attention: one layer of one micro-batch
  kHead,       // attention: output matrix and sampling of one micro-batch
  kFfn,        // FFN: one merged layer call; step, micro-batch and peer are its first call's
  kA2f,        // attention: a call's rows sent until its reply was taken
  kServed,     // FFN: a call's rows arrived until they were answered; queue and compute. Neither
               // is said of a worker's own FFN stage
  kKvSent,     // prefill: KV rows of a layer on their way: until the emulated link has brought
               // them, or a real one has taken them
  kWait,       // no compute: `cause` says why (PROTOCOL section 7)
};
inline constexpr SpanKind kLastSpanKind = SpanKind::kWait;

inline constexpr uint16_t kNoPeer = std::numeric_limits<uint16_t>::max();

// Times are the device's line's (workers/backend/device_timeline.h): the machine's monotonic clock,
// in which an emulated device's seconds are time_scale long. Fields that a kind has no use for are
// zero.
struct Span {
  SpanKind kind = SpanKind::kWait;
  ledger::Cause cause = ledger::Cause::kNone;  // kWait
  uint16_t peer = kNoPeer;                     // index into TraceLog::Peers
  uint16_t calls = 0;                          // kFfn: how many were merged
  uint32_t layer = 0;
  uint32_t micro_batch = 0;
  uint32_t attempt = 0;         // kA2f, kServed
  uint32_t context_tokens = 0;  // kAttention: positions that the rows attend to, of all rows
  uint32_t rows = 0;
  uint64_t step = 0;
  Instant begin{}, end{};

  bool operator==(const Span&) const = default;
};

}  // namespace tandem
