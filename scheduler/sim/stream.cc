#include "scheduler/sim/stream.h"

#include <algorithm>
#include <utility>

namespace tandem::sim {

std::shared_ptr<Stream> Stream::Open(VirtualTime& time, const LinkSpec& spec, Random random,
                                     std::function<void(const Stream*)> dialler_broken,
                                     std::function<void(const Stream*)> answerer_broken) {
  return std::shared_ptr<Stream>(
      new Stream(time, spec, random, std::move(dialler_broken), std::move(answerer_broken)));
}

Stream::Stream(VirtualTime& time, const LinkSpec& spec, Random random,
               std::function<void(const Stream*)> dialler_broken,
               std::function<void(const Stream*)> answerer_broken)
    : time_(time),
      spec_(spec),
      random_(random),
      dialler_broken_(std::move(dialler_broken)),
      answerer_broken_(std::move(answerer_broken)) {}

// The bytes occupy the line one message after the other; the latency comes on top.
void Stream::Send(Direction& direction, uint64_t bytes, absl::AnyInvocable<void()> deliver) {
  if (!open_) return;
  const Duration jitter = Duration::Nanoseconds(
      spec_.jitter > Duration() ? static_cast<int64_t>(random_.Below(spec_.jitter.nanoseconds()))
                                : 0);
  direction.line_free = std::max(direction.line_free, time_.Now()) +
                        Duration::FromSeconds(static_cast<double>(bytes) / spec_.bytes_per_s);
  direction.last_arrival =
      std::max(direction.last_arrival, direction.line_free + spec_.latency + jitter);
  time_.CallAt(direction.last_arrival,
               [self = shared_from_this(), deliver = std::move(deliver)]() mutable {
                 if (self->open_) deliver();
               });
}

void Stream::Break() {
  if (!std::exchange(open_, false)) return;
  time_.CallAt(time_.Now() + spec_.latency, [self = shared_from_this()] {
    if (const auto told = std::exchange(self->dialler_broken_, nullptr)) told(self.get());
    if (const auto told = std::exchange(self->answerer_broken_, nullptr)) told(self.get());
  });
}

void Stream::DiallerGone() {
  dialler_broken_ = nullptr;
  Break();
}

void Stream::AnswererGone() {
  answerer_broken_ = nullptr;
  Break();
}

}  // namespace tandem::sim
