#include "workers/trace/trace_log.h"

#include <algorithm>

namespace tandem {

uint16_t TraceLog::PeerIndex(const std::string& worker) {
  const auto known = index_.find(worker);
  if (known != index_.end()) return known->second;
  if (index_.size() >= kMaxTracePeers) return kNoPeer;
  const auto index = static_cast<uint16_t>(index_.size());
  index_.emplace(worker, index);
  MutexLock lock(mu_);
  peers_.push_back(worker);
  return index;
}

std::vector<std::string> TraceLog::Peers(size_t first) const {
  MutexLock lock(mu_);
  const size_t from = std::min(first, peers_.size());
  return {peers_.begin() + static_cast<ptrdiff_t>(from), peers_.end()};
}

}  // namespace tandem
