#pragma once

// KV transfer within one process: frames move by pointer from a prefill engine to an attention
// engine.

#include <map>
#include <memory>

#include "workers/connector/ports.h"

namespace tandem {

// Add every door first; then Open is safe from any thread. Doors outlive the connector and its
// links. An attention worker without a door is answered Broken, kUnavailable. A listener may not
// destroy its link from within a call.
class LoopbackKvConnector final : public KvConnector {
 public:
  void Add(const WorkerId& attention_worker, KvDoor& door) { doors_[attention_worker] = &door; }

  std::unique_ptr<KvLink> Open(const WorkerId& attention_worker, const std::string& address,
                               std::shared_ptr<KvLinkListener> listener) override;

 private:
  std::map<WorkerId, KvDoor*> doors_;
};

}  // namespace tandem
