#pragma once

// A2F/F2A within one process: calls move by pointer from an attention engine to an FFN engine and
// back.

#include <map>
#include <memory>

#include "workers/connector/ports.h"

namespace tandem {

// Add every door first; then Open is safe from any thread. Doors outlive the connector and its
// links. A holder without a door is answered Broken, kUnavailable. A listener may not destroy its
// link from within a call.
class LoopbackActivationConnector final : public ActivationConnector {
 public:
  void Add(const WorkerId& ffn_worker, FfnDoor& door) { doors_[ffn_worker] = &door; }

  std::unique_ptr<FfnLink> Open(const FfnEndpoint& holder, const HandoffHello& hello,
                                std::shared_ptr<FfnLinkListener> listener) override;

 private:
  std::map<WorkerId, FfnDoor*> doors_;
};

}  // namespace tandem
