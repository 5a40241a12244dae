#pragma once

// The whole control plane on virtual time: the production Controller and the production step
// machines, with simulated devices, links, gateways and clients around them.

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "scheduler/base/time.h"
#include "scheduler/sim/scenario.h"

namespace tandem::sim {

struct SimReport {
  // Tokens of the choices that were to end by themselves, with what each must emit by the hash
  // model; and what clients got.
  uint64_t tokens_requested = 0, tokens_delivered = 0;
  // Choices by how they ended for the client: "eos", "length", "stopped", "cancelled", "rejected"
  // (429 or 503 before any worker took them), "failed", "gateway_lost".
  std::map<std::string, uint32_t> ended;
  Duration ttft_p50, ttft_p99;  // arrival to first token
  Duration tpot_p50, tpot_p99;  // mean gap of a choice after its first token
  uint64_t resumes = 0, preemptions = 0;
  uint64_t class_crossings = 0;  // layer calls that went to another cut of the FFN
  uint64_t event_digest = 0;
  uint64_t events = 0;  // alarms fired
  Duration elapsed;
  uint64_t kv_blocks_leaked = 0;  // taken at the end, when nobody holds a sequence
  std::map<std::string, Duration>
      device_time;  // "attention busy", "shared stall handoff": over all devices
  std::vector<std::string> violations;  // of the invariants; the first few
};

// Plays the scenario once. Equal arguments give equal reports. `trace`: every control event and
// command to stderr.
SimReport Simulate(const Scenario& scenario, uint64_t seed, bool trace = false);

}  // namespace tandem::sim
