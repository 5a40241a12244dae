#include "services/router/registry/worker_book.h"

#include <utility>

namespace tandem::router {

void WorkerBook::Add(uint64_t stream, v1::Registration registration) {
  registration.clear_live();
  const WorkerId worker(registration.worker_id());
  MutexLock lock(mu_);
  Slot& slot = slots_[worker];
  if (slot.stream > stream) return;
  slot = {stream, {std::move(registration), {}}};
}

void WorkerBook::Update(const WorkerId& worker, uint64_t stream, const v1::Heartbeat& heartbeat) {
  MutexLock lock(mu_);
  const auto found = slots_.find(worker);
  if (found != slots_.end() && found->second.stream == stream)
    found->second.entry.heartbeat = heartbeat;
}

void WorkerBook::Remove(const WorkerId& worker, uint64_t stream) {
  MutexLock lock(mu_);
  const auto found = slots_.find(worker);
  if (found != slots_.end() && found->second.stream == stream) slots_.erase(found);
}

std::optional<WorkerBook::Entry> WorkerBook::Find(const WorkerId& worker,
                                                  uint64_t incarnation) const {
  MutexLock lock(mu_);
  const auto found = slots_.find(worker);
  if (found == slots_.end() || found->second.entry.registration.incarnation() != incarnation)
    return std::nullopt;
  return found->second.entry;
}

}  // namespace tandem::router
