#pragma once

// A prefill worker's KV streams: the KvConnector over gRPC.

#include <memory>
#include <string>

#include "scheduler/base/random.h"
#include "services/runtime/link_security.h"
#include "workers/connector/ports.h"
#include "workers/rpc/pacing.h"

namespace tandem {

struct KvShared;  // kv_connector.cc

// Each link is a stream on a connection of its own. Opening never blocks; an address that failed is
// dialled again only after its back-off, while the link's frames wait. Frames pushed and not
// acknowledged are bounded by the engine's send window. Safe from any thread. The destructor waits
// for gRPC's last word on every stream.
class GrpcKvConnector final : public KvConnector {
 public:
  // `time` outlives this.
  GrpcKvConnector(TimeSource& time, Random random, LinkLimits limits, LinkSecurity security = {});
  ~GrpcKvConnector() override;

  std::unique_ptr<KvLink> Open(const WorkerId& attention_worker, const std::string& address,
                               std::shared_ptr<KvLinkListener> listener) override;

 private:
  std::shared_ptr<KvShared> shared_;
};

}  // namespace tandem
