#pragma once

// A worker's membership: one Register stream to each configured router, for as long as the worker
// lives.
//
//   RegistryClient registry(options, description, time, random);   // the engine's WorkerListener
//   WorkerCore core(..., registry);
//   registry.Start(core.commands(), [&] { return core.Report(); });
//   registry.Stop();                                               // before the core goes

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "services/runtime/link_security.h"
#include "workers/connector/ports.h"
#include "workers/rpc/pacing.h"

namespace tandem {

struct RegistryOptions {
  std::vector<std::string> routers;  // addresses, at least one
  BackoffLimits backoff = {.first = Duration::Milliseconds(200), .most = Duration::Seconds(5)};
  Duration refused_retry =
      Duration::Seconds(3);  // a refusal is for the operator to mend: slow, and logged each time
  uint32_t max_queued_messages =
      4096;  // to one router; past it the stream is cut, and `live` tells it all anew
  LinkSecurity security = {};
};

class RouterLink;       // registry_client.cc
struct RegistryShared;  // register_stream.h

// A broken stream is opened again after a back-off, with the sequences that are live then; what
// happens in between, that router learns from the list. Heartbeats follow the interval of the
// router's reply; one whose alarm came late by more than the lease (this process was frozen) goes
// out before anything of that router is judged. Each command is answered once, on the stream that
// brought it. Safe from any thread.
class RegistryClient final : public WorkerListener {
 public:
  // `time` outlives this. `description.live` is ignored: each registration asks for a fresh report.
  RegistryClient(RegistryOptions options, WorkerDescription description, TimeSource& time,
                 Random random);
  ~RegistryClient() override;  // stops

  // Once. `commands` and `report` are used until Stop returns.
  void Start(CommandDoor& commands, std::function<WorkerReport()> report);
  // Ends the streams and waits for their last word. Idempotent.
  void Stop();

  // A heartbeat to every router now: news that should not wait (draining).
  void Beat();

  bool registered() const;  // with at least one router
  std::string Problem()
      const;  // why with none: "router 127.0.0.1:9000: refused: ..."; empty when registered
  uint64_t reconnects() const;

  void OnPrefilled(const SequenceKey& sequence) override;
  void OnEnded(const SequenceKey& sequence, const SequenceEnd& end) override;
  void OnShardLost(const WorkerId& ffn_worker, uint64_t shard_epoch,
                   const std::string& message) override;

 private:
  const std::shared_ptr<RegistryShared> shared_;
  std::vector<std::shared_ptr<RouterLink>> links_;
};

}  // namespace tandem
