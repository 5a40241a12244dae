#pragma once

// What the doors put on the device's desk: events in arrival order, run by the device's thread
// between two computes. An event of an emulated link has a time before which it is not there.

#include <absl/functional/any_invocable.h>
#include <absl/status/status.h>

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <utility>

#include "scheduler/base/time.h"
#include "services/runtime/mutex.h"

namespace tandem {

// Safe from any thread; Take and Wait are the device's.
class Mailbox {
 public:
  // Called exactly once: with OK on the device's thread, or with the reason why it never gets
  // there, at once on the caller's (full: kResourceExhausted; closed: kUnavailable) or by Close.
  using Event = absl::AnyInvocable<void(const absl::Status&)>;

  explicit Mailbox(uint32_t max_events) : max_events_(max_events) {}

  // Refused while `max_events` wait.
  void Post(Event event) TANDEM_EXCLUDES(mu_);
  // For events that another limit bounds (replies by calls, losses by links): refused only when
  // closed.
  void PostBounded(Event event) TANDEM_EXCLUDES(mu_);
  // For what brings the device no work: an emulated device that waits for something else goes on
  // waiting, at the time at which it began. Refused while `max_events` wait.
  void PostNote(Event event) TANDEM_EXCLUDES(mu_);
  void PostNoteAt(Instant at, Event event) TANDEM_EXCLUDES(mu_);  // Instant() is at once

  // The same, at that time; Instant() is at once.
  void PostBoundedAt(Instant at, Event event) TANDEM_EXCLUDES(mu_);

  // What waits, in order: first what has no time, then what is there by `by`, in order of time.
  std::deque<Event> Take(Instant by = Instant::Never()) TANDEM_EXCLUDES(mu_);
  // The first of those with a time, if it is there by `by`.
  std::optional<std::pair<Instant, Event>> TakeFirstTimed(Instant by) TANDEM_EXCLUDES(mu_);
  // Returns when something waits that is there by `time`'s now.
  void Wait(const TimeSource& time) TANDEM_EXCLUDES(mu_);
  // Refuses what waits and all that follows with `status`, kUnavailable.
  void Close(const absl::Status& status) TANDEM_EXCLUDES(mu_);

 private:
  void Put(Event event, Instant at, uint32_t limit) TANDEM_EXCLUDES(mu_);

  const uint32_t max_events_;
  Mutex mu_;
  CondVar filled_;
  std::deque<Event> events_ TANDEM_GUARDED_BY(mu_);
  std::multimap<Instant, Event> timed_ TANDEM_GUARDED_BY(mu_);  // equal times in order of arrival
  absl::Status closed_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem
