#pragma once

// What one simulation plays: workers, load and faults. Written as YAML (tests/sim/scenarios),
// without a seed.

#include <absl/status/statusor.h>
#include <absl/strings/string_view.h>

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/cost/cost_table.h"
#include "scheduler/model/catalog.h"
#include "scheduler/model/model_shape.h"
#include "scheduler/sim/stream.h"
#include "scheduler/view/worker.h"

namespace tandem::sim {

struct WorkerSpec {
  std::string name;  // "a1"
  std::set<Stage> stages;
  std::shared_ptr<const cost::CostTable> costs;  // of its device and the scenario's model
  // The same device's while another worker of the scenario computes, where they share a host; null:
  // its own is all its own.
  std::shared_ptr<const cost::CostTable> beside;
  uint32_t kv_blocks = 512, block_tokens = 16;
  uint32_t max_sequences = 64, max_batch = 32, max_micro_batches = 2;
  uint32_t micro_batches = 0;  // step::DecodeConfig
  uint32_t prefill_slots = 4, chunk_tokens = 32;
  uint32_t max_handoff_rows = 64;
  Duration max_merge_wait;  // ffn
  FfnShard shard;           // `layers: 0:4`, `column: 0/2`; resolved
};

// All lengths uniform in [min, max]. Arrivals exponential, or closed-loop clients.
struct LoadSpec {
  uint32_t requests = 0;
  Duration interarrival_mean;
  // 0: none. Else each of so many sends requests / clients requests, one when the last is done. The
  // first one's output is shorter, by client, so that they do not go in step (FirstOutput); the
  // report's TTFT and TPOT leave each client's first and last request out.
  uint32_t clients = 0;
  uint32_t prompt_min = 1, prompt_max = 1;
  uint32_t output_min = 1, output_max = 1;  // max_tokens
  uint32_t choices_max = 1;                 // n
  uint32_t stop_percent = 0;                // choices that a stop string ends at the gateway
  uint32_t cancel_percent = 0;              // choices whose client leaves
};

// What client `client` of `clients` asks for first: between one token and all.
uint32_t FirstOutput(uint32_t client, uint32_t clients, uint32_t output_tokens);

enum class FaultKind {
  kWorkerDown,
  kWorkerSlow,
  kWorkerDrain,
  kRouterDown,
  kGatewayDown,
  kBreakTokens,
  kBreakAny
};

struct FaultSpec {
  Instant at;
  FaultKind kind = FaultKind::kWorkerDown;
  std::string target;  // worker or gateway; empty: chosen by the seed
  Duration
      lasts;  // kWorkerDown, kRouterDown, kWorkerDrain: until it is back (zero: never); kWorkerSlow
  uint32_t factor_percent = 100;  // kWorkerSlow: of the usual time
};

struct Scenario {
  std::string name;
  model::ModelShape shape;
  uint32_t vocabulary = 512;  // of the hash model; token 0 ends a sequence
  std::vector<WorkerSpec> workers;
  uint32_t gateways = 1;
  uint32_t max_queued_requests = 1024;
  LoadSpec load;
  // Cores that all workers' devices share, each one's call on one of them; 0: they share nothing.
  uint32_t host_cores = 0;
  LinkSpec control_link;  // router, gateways; the devices' links carry KV and hand-offs
  std::vector<FaultSpec> faults;
  Duration time_limit;  // of virtual time; reaching it is a violation
};

// kInvalidArgument names file, line and key; kNotFound a device or model that the catalog lacks.
absl::StatusOr<Scenario> ReadScenario(absl::string_view yaml, absl::string_view where,
                                      const model::Catalog& catalog);

}  // namespace tandem::sim
