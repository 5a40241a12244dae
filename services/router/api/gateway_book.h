#pragma once

// Where each connected gateway serves its metrics: what `tandemctl top` reads TTFT and ITL from.

#include <absl/strings/string_view.h>

#include <cstdint>
#include <map>
#include <string>

#include "scheduler/base/ids.h"
#include "services/runtime/mutex.h"

namespace tandem::router {

// `told` (host:port) as somebody else reaches it: the host 0.0.0.0 or [::] becomes that of the
// stream's `peer`, as gRPC names it ("ipv4:10.0.0.3:4242", "ipv6:%5B::1%5D:4242"). Otherwise, and
// for a peer of another kind, as told.
std::string ReachableAddress(const std::string& told, absl::string_view peer);

// Safe from any thread. One entry for each gateway whose stream is open.
class GatewayBook {
 public:
  // Of one gateway's streams the newest counts: `stream` names it from then on.
  void Add(const GatewayId& gateway, const void* stream, std::string metrics_address);
  void Remove(const GatewayId& gateway, const void* stream);
  std::map<GatewayId, std::string> All()
      const;  // metrics addresses; empty: the gateway did not say

 private:
  struct Entry {
    const void* stream = nullptr;
    std::string metrics_address;
  };
  mutable Mutex mu_;
  std::map<GatewayId, Entry> gateways_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::router
