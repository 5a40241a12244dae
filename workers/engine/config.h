#pragma once

// What the engine of one worker is built with; the model's shape comes from StageBackend::info().

#include <cstdint>
#include <set>
#include <string>

#include "scheduler/base/ids.h"
#include "scheduler/base/time.h"
#include "scheduler/view/worker.h"

namespace tandem {

struct EngineConfig {
  WorkerId worker;         // named in costs, in hand-off hellos and in messages
  std::string model;       // name that hand-off peers must agree on
  std::set<Stage> stages;  // at least one

  // KV of this device, as the backend was given it (ShardSpec); unused on an FFN worker.
  uint32_t kv_blocks = 0;
  uint32_t block_tokens = 16;

  // Decode.
  uint32_t max_sequences = 256;  // held at once, in any state
  uint32_t max_batch = 64;       // rows of one step
  uint32_t max_micro_batches =
      2;  // in flight with a remote FFN; a worker with an FFN stage of its own uses 1
  uint32_t micro_batches = 0;  // of a step; 0: what measured calls make best, within the above
  Duration max_ffn_wait =
      Duration::Seconds(10);  // without a holder: then the step's sequences end kUnavailable
  Duration holder_reopen_delay =
      Duration::Milliseconds(500);  // from a lost holder's break to the next try

  // Prefill.
  uint32_t chunk_tokens = 32;             // rows of one chunk; under 64 in the exact class
  uint32_t max_prefill_jobs = 64;         // prompts in hand
  uint64_t send_window_bytes = 8u << 20;  // KV pushed and not acknowledged, per prompt

  // FFN.
  uint32_t max_handoff_rows = 256;         // of one call, and of one merged compute
  uint64_t max_queued_bytes = 256u << 20;  // A2F rows queued over all streams
  Duration max_merge_wait;                 // of a layer call, for another sender's rows; zero: none
  uint64_t shard_epoch = 1;  // this worker's own number, new whenever its loaded tensors change

  // Tokens.
  Duration gateway_lease =
      Duration::Seconds(10);  // a gateway without a stream has so long to come back
  uint32_t max_replay_messages =
      1024;  // of one gateway, not acknowledged; past it: gateway_overloaded
  uint32_t max_gateways = 256;

  // Events of all doors that wait for the device. Past it commands, calls and KV frames are
  // answered kResourceExhausted and acknowledgements are dropped (a later one covers them); ends,
  // losses and replies, which other limits bound, go in.
  uint32_t max_mailbox_events = 16384;
};

}  // namespace tandem
