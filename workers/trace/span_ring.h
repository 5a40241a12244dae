#pragma once

// The last spans of one device, for readers that come and go: written without a lock, a wait or an
// allocation.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "workers/trace/span.h"

namespace tandem {

// One writer, any number of readers, which never hold it up. A span is six words, stored with
// release and loaded with acquire. The writer publishes span n by setting the head to n + 1 before
// it writes span n + 1, so a reader that saw a word of a newer span than it asked for finds it in
// the head, and drops what it copied: no fence, and every step is one that TSan checks.
class SpanRing {
 public:
  explicit SpanRing(uint32_t capacity);  // spans, a power of two

  // The writer's thread.
  void Add(const Span& span);

  // ---- Any thread.
  uint32_t capacity() const { return mask_ + 1; }
  uint64_t written() const { return head_.load(std::memory_order_acquire); }  // spans so far
  // Appends spans `mark`, `mark` + 1, ... to `out`, at most `max_spans`, and moves `mark` behind
  // the last. Returns how many of them are lost: overwritten before they were read.
  uint64_t Read(uint64_t& mark, size_t max_spans, std::vector<Span>& out) const;

 private:
  static constexpr size_t kWords = 6;
  Span Load(uint64_t number) const;

  const uint32_t mask_;
  const std::unique_ptr<std::atomic<uint64_t>[]> words_;  // [capacity, kWords]
  alignas(64) std::atomic<uint64_t> head_{0};             // written spans
};

}  // namespace tandem
