#pragma once

// What the processes of one simulation share: time, chance, who is up, and the books of what
// happened.

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "scheduler/base/random.h"
#include "scheduler/ledger/ledger.h"
#include "scheduler/sim/describe.h"
#include "scheduler/sim/simulation.h"
#include "scheduler/sim/virtual_time.h"

namespace tandem::sim {

class SimGateway;
class SimRouter;
class SimWorker;

class World {
 public:
  World(const Scenario& scenario, uint64_t seed, bool trace);
  ~World();

  void Run();

  Instant Now() const { return time.Now(); }
  // A stream over `link`; breaks with the others when a fault says so.
  std::shared_ptr<Stream> Open(const LinkSpec& link,
                               std::function<void(const Stream*)> dialler_broken,
                               std::function<void(const Stream*)> answerer_broken);
  SimWorker* UpWorker(const WorkerId& id);  // null: down
  uint32_t Computing() const;               // workers whose device is
  void Record(const std::string& line);     // into the digest, and the trace
  void Violation(const std::string& what);
  // A device's books at the end of its life: they must add up to its elapsed time within 0.1 %.
  void AddLedger(const std::string& worker, const ledger::LedgerSnapshot& snapshot);
  void WorkerExited(const WorkerId& id);  // drained

  const Scenario& scenario;
  const Random random;  // parent of everybody's
  VirtualTime time;
  Digest digest;
  SimReport report;
  std::unique_ptr<SimRouter> router;
  std::vector<Duration> ttft, tpot;

 private:
  void StartWorker(const std::string& name);
  void StopWorker(const std::string& name);
  void Apply(const FaultSpec& fault);
  std::string AnyWorker();
  bool Finished() const;
  void CheckAtEnd();
  void FillReport();

  const bool trace_;
  Random fault_random_;
  uint64_t streams_opened_ = 0;
  std::vector<std::unique_ptr<SimWorker>>
      all_workers_;  // dead ones too: closures may still name them
  std::map<WorkerId, SimWorker*> up_;
  std::map<std::string, uint64_t> incarnations_;
  std::map<std::string, Duration> returns_;  // drained workers: when they come back
  std::vector<std::unique_ptr<SimGateway>> gateways_;
  std::vector<std::weak_ptr<Stream>> streams_;
};

}  // namespace tandem::sim
