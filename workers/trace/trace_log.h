#pragma once

// The trace of one device: its ring of spans, and the names of the workers that they speak of.

#include <cstddef>
#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "services/runtime/mutex.h"
#include "workers/trace/span_ring.h"

namespace tandem {

// Spans kept: a third of a second at 100,000 a second, 1.5 MiB.
inline constexpr uint32_t kTraceSpans = 1 << 15;
// Names of peers; spans of further ones say kNoPeer.
inline constexpr size_t kMaxTracePeers = 4096;

class TraceLog {
 public:
  explicit TraceLog(uint32_t max_spans = kTraceSpans) : ring_(max_spans) {}

  // ---- The device's thread.
  void Add(const Span& span) { ring_.Add(span); }
  // The worker's index for Span::peer, for good. Takes a lock only when the name is new.
  uint16_t PeerIndex(const std::string& worker) TANDEM_EXCLUDES(mu_);

  // ---- Any thread.
  const SpanRing& ring() const { return ring_; }
  // The names from index `first` on.
  std::vector<std::string> Peers(size_t first) const TANDEM_EXCLUDES(mu_);

 private:
  SpanRing ring_;
  mutable Mutex mu_;
  std::vector<std::string> peers_ TANDEM_GUARDED_BY(mu_);
  std::unordered_map<std::string, uint16_t> index_;  // the device's thread's
};

}  // namespace tandem
