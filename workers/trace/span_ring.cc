#include "workers/trace/span_ring.h"

#include <algorithm>

#include "scheduler/base/check.h"

namespace tandem {
namespace {

uint64_t Pack(uint32_t high, uint32_t low) { return uint64_t{high} << 32 | low; }
uint32_t High(uint64_t word) { return static_cast<uint32_t>(word >> 32); }
uint32_t Low(uint64_t word) { return static_cast<uint32_t>(word); }
// No kind has both a context and attempts: they share half a word.
bool HasContext(SpanKind kind) { return kind == SpanKind::kAttention; }

}  // namespace

SpanRing::SpanRing(uint32_t capacity)
    : mask_(capacity - 1),
      words_(std::make_unique<std::atomic<uint64_t>[]>(size_t{capacity} * kWords)) {
  TANDEM_CHECK(capacity > 1 && (capacity & mask_) == 0);
}

void SpanRing::Add(const Span& span) {
  const uint64_t number = head_.load(std::memory_order_relaxed);
  std::atomic<uint64_t>* const word = &words_[(number & mask_) * kWords];
  const uint32_t who = uint32_t{span.peer} << 16 | static_cast<uint32_t>(span.kind) << 8 |
                       static_cast<uint32_t>(span.cause);
  const uint64_t packed[kWords] = {
      static_cast<uint64_t>(span.begin.nanoseconds()),
      static_cast<uint64_t>(span.end.nanoseconds()),
      span.step,
      Pack(span.layer, span.micro_batch),
      Pack(span.rows, HasContext(span.kind) ? span.context_tokens : span.attempt),
      Pack(who, span.calls)};
  for (size_t i = 0; i < kWords; i++) word[i].store(packed[i], std::memory_order_release);
  head_.store(number + 1, std::memory_order_release);
}

Span SpanRing::Load(uint64_t number) const {
  const std::atomic<uint64_t>* const word = &words_[(number & mask_) * kWords];
  uint64_t packed[kWords];
  for (size_t i = 0; i < kWords; i++) packed[i] = word[i].load(std::memory_order_acquire);
  const uint32_t who = High(packed[5]);
  Span span;
  span.begin = Instant::FromNanoseconds(static_cast<int64_t>(packed[0]));
  span.end = Instant::FromNanoseconds(static_cast<int64_t>(packed[1]));
  span.step = packed[2];
  span.layer = High(packed[3]);
  span.micro_batch = Low(packed[3]);
  span.rows = High(packed[4]);
  span.peer = static_cast<uint16_t>(who >> 16);
  span.kind = static_cast<SpanKind>(who >> 8 & 0xff);
  (HasContext(span.kind) ? span.context_tokens : span.attempt) = Low(packed[4]);
  span.cause = static_cast<ledger::Cause>(who & 0xff);
  span.calls = static_cast<uint16_t>(Low(packed[5]));
  return span;
}

uint64_t SpanRing::Read(uint64_t& mark, size_t max_spans, std::vector<Span>& out) const {
  const uint64_t head = written();
  const uint64_t asked = std::min(mark, head);
  const uint64_t first = std::max(asked, head > capacity() ? head - capacity() : 0);
  const uint64_t last = std::min<uint64_t>(head, first + max_spans);
  const size_t before = out.size();
  out.reserve(before + (last - first));
  for (uint64_t number = first; number < last; number++) out.push_back(Load(number));
  // Meanwhile the writer went on, and may be within the span numbered `now`.
  const uint64_t now = written();
  const uint64_t kept = now + 1 > capacity() ? now + 1 - capacity() : 0;
  const uint64_t whole = std::clamp(kept, first, last);
  out.erase(out.begin() + static_cast<ptrdiff_t>(before),
            out.begin() + static_cast<ptrdiff_t>(before + (whole - first)));
  mark = last;
  return whole - asked;
}

}  // namespace tandem
