#pragma once

// The KV streams of one prefill worker: one to each attention worker that an order named, kept
// until it breaks and opened again by the next order.

#include <absl/status/status.h>

#include <functional>
#include <map>
#include <memory>
#include <string>

#include "workers/connector/ports.h"
#include "workers/engine/context.h"

namespace tandem {

// Lives on the device's thread; so do its callbacks.
class KvSender {
 public:
  struct Callbacks {
    std::function<void(const KvAckInfo&)> on_ack;
    std::function<void(const WorkerId& attention_worker, const absl::Status&)> on_broken;
  };
  KvSender(EngineContext& context, KvConnector& connector, Callbacks callbacks);

  // Makes sure that a stream to the worker exists; one to another address of it is given up first
  // (on_broken).
  void Open(const WorkerId& attention_worker, const std::string& address);
  // Without a stream the frame is dropped: its loss was told.
  void Push(const WorkerId& attention_worker, KvRows frame);
  void CloseAll() { links_.clear(); }

 private:
  struct Link {
    uint64_t id = 0;  // tells late words of an older link of the same worker
    std::string address;
    std::unique_ptr<KvLink> link;
  };
  class Listener;
  void OnAck(const WorkerId& worker, uint64_t id, const KvAckInfo& ack);
  void OnBroken(const WorkerId& worker, uint64_t id, const absl::Status& status);
  bool IsCurrent(const WorkerId& worker, uint64_t id) const;

  EngineContext& context_;
  KvConnector& connector_;
  Callbacks callbacks_;
  std::map<WorkerId, Link> links_;
  uint64_t next_id_ = 1;
};

}  // namespace tandem
