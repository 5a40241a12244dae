#pragma once

// An attention worker's hand-off streams: the ActivationConnector over gRPC.

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "scheduler/base/random.h"
#include "services/runtime/link_security.h"
#include "workers/connector/ports.h"
#include "workers/rpc/pacing.h"

namespace tandem {

struct HandoffShared;  // handoff_connector.cc: what the streams, which may outlive a link by a
                       // little, hold in common

// Each link is a stream on a connection of its own. Opening never blocks; an address that failed is
// dialled again only after its back-off, while the link waits. Safe from any thread. The destructor
// waits for gRPC's last word on every stream.
class HandoffConnector final : public ActivationConnector {
 public:
  // `time` outlives this.
  HandoffConnector(TimeSource& time, Random random, LinkLimits limits, LinkSecurity security = {});
  ~HandoffConnector() override;

  std::unique_ptr<FfnLink> Open(const FfnEndpoint& holder, const HandoffHello& hello,
                                std::shared_ptr<FfnLinkListener> listener) override;

  // Replies that no outstanding call of their stream asked for; they were dropped.
  uint64_t mismatched_replies() const;

 private:
  std::shared_ptr<HandoffShared> shared_;
};

}  // namespace tandem
