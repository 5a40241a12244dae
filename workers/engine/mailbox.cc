#include "workers/engine/mailbox.h"

#include <absl/strings/str_cat.h>

#include <chrono>
#include <cstdint>
#include <utility>

#include "workers/connector/own_copy.h"

namespace tandem {

void Mailbox::Post(Event event) { Put(std::move(event), Instant(), max_events_); }

void Mailbox::PostBounded(Event event) { Put(std::move(event), Instant(), UINT32_MAX); }

// At a time that has always passed, and moves no time line.
void Mailbox::PostNote(Event event) {
  Put(std::move(event), Instant::FromNanoseconds(-1), max_events_);
}

void Mailbox::PostNoteAt(Instant at, Event event) {
  if (at == Instant()) return PostNote(std::move(event));
  Put(std::move(event), at, max_events_);
}

void Mailbox::PostBoundedAt(Instant at, Event event) { Put(std::move(event), at, UINT32_MAX); }

void Mailbox::Put(Event event, Instant at, uint32_t limit) {
  absl::Status refused;
  {
    MutexLock lock(mu_);
    refused = OwnCopy(closed_);
    if (refused.ok() && events_.size() + timed_.size() >= limit) {
      refused = absl::ResourceExhaustedError(
          absl::StrCat("the device is behind: ", limit, " events wait"));
    }
    if (refused.ok()) {
      // The device waits for the first of each kind only.
      bool first = events_.empty();
      if (at == Instant()) {
        events_.push_back(std::move(event));
      } else {
        first = timed_.empty() || at < timed_.begin()->first;
        timed_.emplace(at, std::move(event));
      }
      if (first) filled_.NotifyOne();
      return;
    }
  }
  event(refused);
}

std::deque<Mailbox::Event> Mailbox::Take(Instant by) {
  std::deque<Event> taken;
  MutexLock lock(mu_);
  taken.swap(events_);
  while (!timed_.empty() && timed_.begin()->first <= by) {
    taken.push_back(std::move(timed_.begin()->second));
    timed_.erase(timed_.begin());
  }
  return taken;
}

std::optional<std::pair<Instant, Mailbox::Event>> Mailbox::TakeFirstTimed(Instant by) {
  MutexLock lock(mu_);
  if (timed_.empty() || timed_.begin()->first > by) return std::nullopt;
  std::pair<Instant, Event> first(timed_.begin()->first, std::move(timed_.begin()->second));
  timed_.erase(timed_.begin());
  return first;
}

void Mailbox::Wait(const TimeSource& time) {
  MutexLock lock(mu_);
  while (events_.empty()) {
    if (timed_.empty()) {
      filled_.Wait(lock);
      continue;
    }
    const Duration left = timed_.begin()->first - time.Now();
    if (left <= Duration()) return;
    filled_.WaitFor(lock, std::chrono::nanoseconds(left.nanoseconds()));
  }
}

void Mailbox::Close(const absl::Status& status) {
  std::deque<Event> refused;
  {
    MutexLock lock(mu_);
    if (!closed_.ok()) return;
    closed_ = OwnCopy(status);
    refused.swap(events_);
    for (auto& [at, event] : timed_) refused.push_back(std::move(event));
    timed_.clear();
  }
  for (Event& event : refused) event(status);
}

}  // namespace tandem
