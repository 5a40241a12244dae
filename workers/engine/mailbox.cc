#include "workers/engine/mailbox.h"

#include <absl/strings/str_cat.h>

#include <cstdint>
#include <utility>

#include "workers/connector/own_copy.h"

namespace tandem {

void Mailbox::Post(Event event) { Put(std::move(event), max_events_); }

void Mailbox::PostBounded(Event event) { Put(std::move(event), UINT32_MAX); }

void Mailbox::Put(Event event, uint32_t limit) {
  absl::Status refused;
  {
    MutexLock lock(mu_);
    refused = OwnCopy(closed_);
    if (refused.ok() && events_.size() >= limit) {
      refused = absl::ResourceExhaustedError(
          absl::StrCat("the device is behind: ", limit, " events wait"));
    }
    if (refused.ok()) {
      events_.push_back(std::move(event));
      if (events_.size() == 1) filled_.NotifyOne();
      return;
    }
  }
  event(refused);
}

std::deque<Mailbox::Event> Mailbox::Take() {
  std::deque<Event> taken;
  MutexLock lock(mu_);
  taken.swap(events_);
  return taken;
}

void Mailbox::Wait() {
  MutexLock lock(mu_);
  while (events_.empty()) filled_.Wait(lock);
}

void Mailbox::Close(const absl::Status& status) {
  std::deque<Event> refused;
  {
    MutexLock lock(mu_);
    if (!closed_.ok()) return;
    closed_ = OwnCopy(status);
    refused.swap(events_);
  }
  for (Event& event : refused) event(status);
}

}  // namespace tandem
