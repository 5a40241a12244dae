#pragma once

// Connectors around others whose links a test can break, refuse and hold back.

#include <deque>
#include <map>
#include <memory>
#include <set>

#include "services/runtime/mutex.h"
#include "workers/connector/ports.h"

namespace tandem::test {

// Safe from any thread.
class FaultyActivationConnector final : public ActivationConnector {
 public:
  explicit FaultyActivationConnector(ActivationConnector& inner) : inner_(inner) {}
  std::unique_ptr<FfnLink> Open(const FfnEndpoint& holder, const HandoffHello& hello,
                                std::shared_ptr<FfnLinkListener> listener) override;

  // Breaks the open links to this worker, as a lost process does; from now on new ones are refused,
  // until Heal.
  void Kill(const WorkerId& ffn_worker) TANDEM_EXCLUDES(mu_);
  void Heal(const WorkerId& ffn_worker) TANDEM_EXCLUDES(mu_);
  // Replies of this worker stay on the wire until Release.
  void Hold(const WorkerId& ffn_worker) TANDEM_EXCLUDES(mu_);
  void Release(const WorkerId& ffn_worker) TANDEM_EXCLUDES(mu_);

 private:
  class Wire;
  class Link;
  std::vector<std::shared_ptr<Wire>> WiresTo(const WorkerId& worker) TANDEM_REQUIRES(mu_);

  ActivationConnector& inner_;
  Mutex mu_;
  std::multimap<WorkerId, std::weak_ptr<Wire>> wires_ TANDEM_GUARDED_BY(mu_);
  std::set<WorkerId> dead_ TANDEM_GUARDED_BY(mu_);
};

class FaultyKvConnector final : public KvConnector {
 public:
  explicit FaultyKvConnector(KvConnector& inner) : inner_(inner) {}
  std::unique_ptr<KvLink> Open(const WorkerId& attention_worker, const std::string& address,
                               std::shared_ptr<KvLinkListener> listener) override;

  // Breaks the open links to this worker once; a new one works.
  void Break(const WorkerId& attention_worker) TANDEM_EXCLUDES(mu_);

 private:
  class Wire;
  class Link;
  KvConnector& inner_;
  Mutex mu_;
  std::multimap<WorkerId, std::weak_ptr<Wire>> wires_ TANDEM_GUARDED_BY(mu_);
};

}  // namespace tandem::test
