#pragma once

// What the router's policies read of the workers: numbers only, already corrected for what was sent
// since the last heartbeat. Lists are in ascending WorkerId order.

#include <cstdint>
#include <set>
#include <vector>

#include "scheduler/base/ids.h"
#include "scheduler/view/shard.h"

namespace tandem {

// An attention worker that may take a request.
struct AttentionView {
  WorkerId id;
  int64_t kv_blocks_free = 0;   // expected now; the worker is the arbiter
  uint32_t kv_blocks = 0;       // >= 1
  uint32_t block_tokens = 0;    // >= 1
  uint32_t context_tokens = 0;  // longest prompt + output
  uint32_t sequences = 0;       // held or on their way
  uint32_t max_sequences = 0;   // >= 1
};

// What one placement asks of an attention worker.
struct AttentionDemand {
  uint64_t start_tokens = 0;  // prompt and emitted ids: reserved at once
  uint64_t final_tokens = 0;  // prompt + max_tokens: what one sequence may grow to
  uint32_t choices = 1;       // >= 1; they share the prompt's full blocks
};

// A worker that may prefill a prompt.
struct PrefillView {
  WorkerId id;
  uint32_t prompts = 0;  // in hand or on their way
  uint32_t slots = 0;    // >= 1
};

// A worker that computes FFN layers for others.
struct HolderView {
  WorkerId id;
  FfnShard shard;  // resolved: last_layer is a number
};

// An attention worker without FFN weights of its own.
struct GroupSeat {
  WorkerId attention;
  std::vector<WorkerId> current;  // its holders until now, best first; some may be gone
  std::set<WorkerId> suspected;   // holders that it has reported lost
};

}  // namespace tandem
